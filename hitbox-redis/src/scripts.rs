//! What the server carries out in one step. A script is sent with each call: it costs less than a second round trip
//! where the server has forgotten it, and needs no right but `EVAL`.

/// The commands that a user of the server has to be allowed, those that scripts run among them.
pub(crate) const RIGHTS: &str =
    "+get +mget +set +getrange +setrange +pexpireat +persist +unlink +eval +scan +ping";

/// Removes records of ours, each of the key whose digest is in ARGV, and answers with the header and attributes of each, or with nothing
/// for what is none: a key that does not exist, somebody else's value, or a record of another key. The keys' permissions are checked by the server before it begins.
pub(crate) const REMOVE: &str = r"
local found = {}
for i, key in ipairs(KEYS) do
  local head = redis.pcall('GETRANGE', key, 0, 143)
  found[i] = false
  if type(head) == 'table' then
    if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
  elseif string.sub(head, 1, 4) == 'HBOX' and string.sub(head, 81, 96) == ARGV[i] then
    found[i] = redis.call('GETRANGE', key, 0, 143 + struct.unpack('<I4', head, 113))
    redis.call('UNLINK', key)
  end
end
return found
";

/// Replaces the header of a record (ARGV 1, by ARGV 2) if it is still the one that was read, and says when the record ends
/// (ARGV 3, or never). The value does not travel.
pub(crate) const SET_HEADER: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, 143) ~= ARGV[1] then return 0 end
redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
if ARGV[3] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return 1
";

/// Removes a record if it is still the one that was found damaged.
pub(crate) const REMOVE_IF_SAME: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0";

/// Stores a record (ARGV 1, to end at ARGV 2 if that is not empty) on a condition (ARGV 4): `newer` unless the stored one
/// has a version that is not lower, `absent` unless there is one, `same` if the stored one has the identity ARGV 3. For
/// the first two a stored record with that identity does not count, nor one of another namespace epoch. If the condition
/// does not hold the answer is the start of the stored record, header and attributes, which is empty if there is none.
/// What is no record does not count either.
pub(crate) const SET_IF: &str = r"
local head = redis.pcall('GETRANGE', KEYS[1], 0, 143)
if type(head) == 'table' then
  if not string.find(head.err, 'WRONGTYPE', 1, true) then return head end
  head = ''
end
local is_record = #head == 144 and string.sub(head, 1, 4) == 'HBOX' and string.byte(head, 5) == 1
local start = function()
  if not is_record then return '' end
  return redis.call('GETRANGE', KEYS[1], 0, 143 + struct.unpack('<I4', head, 113))
end
local is_known = is_record and string.sub(head, 105, 112) == ARGV[3]
if ARGV[4] == 'same' then
  if not is_known then return start() end
elseif is_record and not is_known and string.sub(head, 121, 128) == string.sub(ARGV[1], 121, 128) then
  if ARGV[4] == 'absent' then return start() end
  local has_version = math.floor(struct.unpack('<I2', head, 7) / 64) % 2 == 1
  local low, high = struct.unpack('<I4I4', head, 65)
  local new_low, new_high = struct.unpack('<I4I4', ARGV[1], 65)
  if has_version and (new_high < high or (new_high == high and new_low <= low)) then return start() end
end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
end
return false
";
