// Runs the cache tests of the HTTP working group against one proxy: serves their origin, reads from its standard input
// where the proxy listens, sends the tests through it, and writes what came of each of them to a file.
//
//     node run.mjs HOST PORT RESULTS [TEST…]
//
// With tests, only these run, and all that is sent and received is printed.

import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'

import fetch from 'node-fetch'

import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import { determineTestResult } from 'http-cache-tests/lib/display.mjs'
import config from 'http-cache-tests/server/handle-config.mjs'
import state from 'http-cache-tests/server/handle-state.mjs'
import test from 'http-cache-tests/server/handle-test.mjs'
import suites from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'

// After so many milliseconds an exchange counts as failed.
const LIMIT = 20_000

// The signs that the tests have for their results, as words.
const VERDICTS = {
  '✅': 'passed',
  Y: 'passed',
  '⛔️': 'failed',
  '⚠️': 'failed',
  N: 'failed',
  '🔹': 'setup-failed',
  '↻': 'retried',
  '⚪️': 'dependency-failed'
}

function verdict (id, results, withDependencies) {
  return VERDICTS[determineTestResult(suites, id, results, withDependencies)[2]] ?? 'untested'
}

function why (test, verdict, results) {
  if (verdict === 'passed') return null
  if (verdict === 'dependency-failed') {
    const failed = test.depends_on.find(id => !passed(id, results))
    return `depends on ${failed}`
  }
  const result = results[test.id]
  return Array.isArray(result) ? result.join(': ') : null
}

function passed (id, results) {
  return verdict(id, results, true) === 'passed'
}

function report (results, ofAll) {
  const tests = suites.flatMap(suite => suite.tests.map(test => ({ suite: suite.id, ...test })))
  return tests.filter(test => test.id in results).map(test => {
    const judged = verdict(test.id, results, ofAll)
    const { id, name, suite, kind = 'required' } = test
    return { id, name, suite, kind, verdict: judged, reason: why(test, judged, results) }
  })
}

function serveOrigin (host, port) {
  const roles = { config, state, test }
  const server = createServer((request, response) => {
    const [role, ...rest] = new URL(request.url, 'http://origin').pathname.split('/').slice(1)
    const answer = roles[role]
    if (answer) {
      answer(rest, request, response)
    } else {
      response.writeHead(404).end()
    }
  })
  return new Promise((resolve, reject) => {
    server.on('error', reject)
    server.listen(port, host, () => resolve(server.address()))
  })
}

function select (ids) {
  const chosen = suites.map(suite => ({ ...suite, tests: suite.tests.filter(test => ids.includes(test.id)) }))
  const found = chosen.flatMap(suite => suite.tests)
  const missing = ids.filter(id => !found.some(test => test.id === id))
  if (missing.length) {
    console.error(`there is no test ${missing.join(', ')}`)
    process.exit(2)
  }
  for (const test of found) test.dump = true
  return chosen
}

const [host, port, file, ...ids] = process.argv.slice(2)
suites.push(surrogate)
const chosen = ids.length ? select(ids) : suites
const address = await serveOrigin(host, Number(port))
console.log(`listening on ${address.address}:${address.port}`)
const { value: proxy } = await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()
const exchange = (url, init) => fetch(url, { ...init, timeout: LIMIT })
// Single tests one after the other, so that what is printed of each stands together.
await runTests(chosen, exchange, false, proxy.replace(/\/$/, ''), ids.length ? 1 : undefined)
writeFileSync(file, JSON.stringify(report(getResults(), ids.length === 0)))
process.exit()
