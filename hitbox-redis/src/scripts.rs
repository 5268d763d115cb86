//! What the server carries out in one step. A script is sent with each call: it costs less than a second round trip
//! where the server has forgotten it, and needs no right but `EVAL`.

/// The commands that a user of the server has to be allowed, those that scripts run among them.
pub(crate) const RIGHTS: &str = "+get +mget +set +getrange +setrange +hget +hmget +hset +hlen +rename +pexpire +pexpireat +persist +unlink +eval +scan +ping";

/// `look` answers with the header of what is under a key, empty if that is nothing of ours, and, of a body in parts, with header and
/// attributes; or with an error. The keys' permissions are checked by the server before a script begins.
macro_rules! looking {
    ($script:expr) => {
        concat!(
            r"
local function is_wrong_type(answer) return string.find(answer.err, 'WRONGTYPE', 1, true) end
local function look(key)
  local head = redis.pcall('GETRANGE', key, 0, 143)
  if type(head) ~= 'table' then return head end
  if not is_wrong_type(head) then return nil, nil, head end
  local start = redis.pcall('HGET', key, 'start')
  if type(start) == 'table' then
    if is_wrong_type(start) then return '' end
    return nil, nil, start
  end
  if not start then return '' end
  return string.sub(start, 1, 144), start
end
",
            $script
        )
    };
}

/// `in_the_way` answers with the start of the stored record, header and attributes, if it forbids that a record with the header `new` is
/// stored on a condition (`mode`): `newer` unless the stored one has a version that is not lower, `absent` unless there is one, `same` if
/// the stored one has this identity. For the first two a stored record with that identity does not count, nor one of another namespace epoch.
/// What is no record does not count either. The start is empty if there is none.
macro_rules! comparing {
    ($script:expr) => {
        looking!(concat!(
            r"
local function in_the_way(key, mode, identity, new)
  if mode == 'always' then return nil end
  local head, start, failed = look(key)
  if failed then return nil, failed end
  local is_record = #head == 144 and string.sub(head, 1, 4) == 'HBOX' and string.byte(head, 5) == 1
  local found = function()
    if not is_record then return '' end
    return start or redis.call('GETRANGE', key, 0, 143 + struct.unpack('<I4', head, 113))
  end
  local is_known = is_record and string.sub(head, 105, 112) == identity
  if mode == 'same' then
    if not is_known then return found() end
  elseif is_record and not is_known and string.sub(head, 121, 128) == string.sub(new, 121, 128) then
    if mode == 'absent' then return found() end
    local has_version = math.floor(struct.unpack('<I2', head, 7) / 64) % 2 == 1
    local low, high = struct.unpack('<I4I4', head, 65)
    local new_low, new_high = struct.unpack('<I4I4', new, 65)
    if has_version and (new_high < high or (new_high == high and new_low <= low)) then return found() end
  end
  return nil
end
",
            $script
        ))
    };
}

/// Removes records of ours, each of the key whose digest is in ARGV, and answers with the header and attributes of each, or with nothing
/// for what is none: a key that does not exist, somebody else's value, or a record of another key.
pub(crate) const REMOVE: &str = looking!(
    r"
local found = {}
for i, key in ipairs(KEYS) do
  local head, start, failed = look(key)
  if failed then return failed end
  found[i] = false
  if #head == 144 and string.sub(head, 1, 4) == 'HBOX' and string.sub(head, 81, 96) == ARGV[i] then
    found[i] = start or redis.call('GETRANGE', key, 0, 143 + struct.unpack('<I4', head, 113))
    redis.call('UNLINK', key)
  end
end
return found
"
);

/// Removes a record of the key with the digest ARGV 1 if its identity is ARGV 2. The answer is that of the removal of one record.
pub(crate) const REMOVE_SAME: &str = looking!(
    r"
local head, start, failed = look(KEYS[1])
if failed then return failed end
if string.sub(head, 81, 96) ~= ARGV[1] or string.sub(head, 105, 112) ~= ARGV[2] then return {false} end
local found = start or redis.call('GETRANGE', KEYS[1], 0, 143 + struct.unpack('<I4', head, 113))
redis.call('UNLINK', KEYS[1])
return {found}
"
);

/// Replaces the header of a record (ARGV 1, by ARGV 2) if it is still the one that was read, and says when the record ends
/// (ARGV 3, or never). The value does not travel.
pub(crate) const SET_HEADER: &str = looking!(
    r"
local head, start, failed = look(KEYS[1])
if failed then return failed end
if head ~= ARGV[1] then return 0 end
if start then
  redis.call('HSET', KEYS[1], 'start', ARGV[2] .. string.sub(start, 145))
else
  redis.call('SETRANGE', KEYS[1], 0, ARGV[2])
end
if ARGV[3] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return 1
"
);

/// Removes a record if it is still the one that was found damaged.
pub(crate) const REMOVE_IF_SAME: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end return 0";

/// Stores a record (ARGV 1, to end at ARGV 2 if that is not empty) on a condition (ARGV 4, with the identity ARGV 3). If it does not hold
/// the answer is the start of the record that is in the way.
pub(crate) const SET_IF: &str = comparing!(
    r"
local start, failed = in_the_way(KEYS[1], ARGV[4], ARGV[3], ARGV[1])
if failed then return failed end
if start then return start end
if ARGV[2] == '' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
end
return false
"
);

/// Writes a part (ARGV 1, ARGV 2) of a body, which the server keeps for ARGV 3 milliseconds.
pub(crate) const WRITE_PART: &str = r"
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
";

/// Puts a body in parts (KEYS 1, of ARGV 5 parts) under its key (KEYS 2), with header and attributes (ARGV 1), to end at ARGV 2 if
/// that is not empty, on a condition (ARGV 4, with the identity ARGV 3). Its length is ARGV 6. If the condition does not hold the answer is the start of the record that is in
/// the way, and if parts are gone it is 0. What is there is replaced by the `RENAME`: if that fails, it stays. An end that is over by now removes the body.
pub(crate) const COMMIT_BODY: &str = comparing!(
    r"
if redis.call('HLEN', KEYS[1]) ~= tonumber(ARGV[5]) then return 0 end
local start, failed = in_the_way(KEYS[2], ARGV[4], ARGV[3], ARGV[1])
if failed then return failed end
if start then return start end
redis.call('HSET', KEYS[1], 'start', ARGV[1], 'identity', string.sub(ARGV[1], 105, 112), 'len', ARGV[6])
redis.call('RENAME', KEYS[1], KEYS[2])
if ARGV[2] == '' then redis.call('PERSIST', KEYS[2]) else redis.call('PEXPIREAT', KEYS[2], ARGV[2]) end
return false
"
);

/// Replaces header and attributes of a record (ARGV 1, which ends at ARGV 2 if that is not empty) if they are still these (ARGV 3); else
/// the answer is 0.
pub(crate) const SET_START: &str = looking!(
    r"
local head, start, failed = look(KEYS[1])
if failed then return failed end
if start then
  if start ~= ARGV[3] then return 0 end
  redis.call('HSET', KEYS[1], 'start', ARGV[1])
else
  if #head ~= 144 or redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) ~= ARGV[3] then return 0 end
  redis.call('SET', KEYS[1], ARGV[1] .. redis.call('GETRANGE', KEYS[1], #ARGV[3], -1))
end
if ARGV[2] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
return 1
"
);

/// Removes a body in parts if it is still the one with the identity ARGV 1.
pub(crate) const REMOVE_BODY: &str = looking!(
    r"
local head, start, failed = look(KEYS[1])
if failed then return failed end
if not start or string.sub(head, 105, 112) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
"
);
