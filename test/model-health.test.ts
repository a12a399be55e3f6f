import { describe, expect, test } from 'bun:test'
import { type ErrorDetails, type ErrorName, GatewayError } from '../src/errors.ts'
import {
  type CheckResult,
  createModelHealth,
  type FailureReason,
  type HealthRules,
  healthRules,
  type ModelState,
} from '../src/model-health.ts'
import { DirectModel } from '../src/resources/model.ts'

const NOW = Date.parse('2030-01-01T00:00:00Z')

const CHECK = {
  enabled: true,
  interval_seconds: 10,
  timeout_seconds: 1,
  prompt: 'ping',
  max_tokens: 1,
  stale_after_seconds: 60,
}

function rulesOf(members: Record<string, unknown> = {}): HealthRules {
  const document = { display_name: 'a', provider: 'vllm', model_name: 'm', provider_key_id: 'pk', ...members }
  return healthRules(DirectModel.parse(document))
}

function newState(): ModelState {
  return createModelHealth().of('m1')
}

function failure(kind: ErrorName, details: ErrorDetails = {}): GatewayError {
  return new GatewayError(kind, 'a failure', details)
}
const answered = (upstreamStatus: number, retryAfterSecs?: number) =>
  failure('upstream_error', { upstreamStatus, ...(retryAfterSecs === undefined ? {} : { retryAfterSecs }) })

/** Seconds of the cooldown that a fresh model is in after one failure, and why; 0 where there is none. */
function cooldownAfter(error: GatewayError, cooldown: Record<string, unknown> | undefined = undefined) {
  const rules = rulesOf(cooldown ? { cooldown } : {})
  const state = newState()
  state.failed(error, rules, NOW)
  const { cooldownUntil, reason } = state.report(rules, NOW)
  expect(state.availability(rules, NOW)).toBe(cooldownUntil === undefined ? 'healthy' : 'cooldown')
  return { secs: cooldownUntil === undefined ? 0 : (cooldownUntil - NOW) / 1_000, reason }
}

const passed: CheckResult = { outcome: 'passed', status: 200, reason: undefined }
const failed: CheckResult = { outcome: 'failed', status: 503, reason: 'background_check_failed' }
const ignored: CheckResult = { outcome: 'ignored', status: 429, reason: 'ignored_transient_error' }

describe('a cooldown starts after', () => {
  test.each<[number, FailureReason]>([
    [401, 'upstream_auth_failure'],
    [408, 'upstream_request_timeout'],
    [429, 'upstream_rate_limited'],
    [500, 'upstream_server_error'],
    [502, 'upstream_server_error'],
    [503, 'upstream_server_error'],
    [504, 'upstream_server_error'],
  ])('status %d, for 30 s, because of %s', (status, reason) => {
    expect(cooldownAfter(answered(status))).toEqual({ secs: 30, reason })
  })

  test.each<[ErrorName, FailureReason]>([
    ['timeout', 'request_timeout'],
    ['transport_error', 'transport_error'],
    ['stream_aborted', 'transport_error'],
    ['upstream_decode_error', 'upstream_decode_error'],
    ['upstream_in_band_error', 'upstream_in_band_error'],
    // An error object inside a 2xx that tells no status.
    ['upstream_error', 'upstream_in_band_error'],
  ])('%s without a status, for 30 s, because of %s', (kind, reason) => {
    expect(cooldownAfter(failure(kind))).toEqual({ secs: 30, reason })
  })

  test('an in-band error with a status of its own, by that status', () => {
    const rateLimited = failure('upstream_in_band_error', { upstreamStatus: 429 })
    expect(cooldownAfter(rateLimited)).toEqual({ secs: 30, reason: 'upstream_rate_limited' })
    expect(cooldownAfter(failure('upstream_in_band_error', { upstreamStatus: 400 })).secs).toBe(0)
    expect(cooldownAfter(rateLimited, { trigger_on_transport: false }).secs).toBe(30)
  })

  test('an undecodable body, whatever good status it came with', () => {
    const undecodable = failure('upstream_decode_error', { upstreamStatus: 200 })
    expect(cooldownAfter(undecodable)).toEqual({ secs: 30, reason: 'upstream_decode_error' })
  })

  test('a status that the operator lists, and then after no other', () => {
    const cooldown = { trigger_statuses: [404, 501] }
    expect(cooldownAfter(answered(404), cooldown)).toEqual({ secs: 30, reason: 'upstream_status_failure' })
    expect(cooldownAfter(answered(501), cooldown)).toEqual({ secs: 30, reason: 'upstream_server_error' })
    expect(cooldownAfter(answered(503), cooldown).secs).toBe(0)
    expect(cooldownAfter(answered(429), { trigger_statuses: [] }).secs).toBe(0)
  })
})

describe('no cooldown and no failure is counted after', () => {
  test.each<ErrorName>([
    'invalid_upstream_config',
    'invalid_upstream_credentials',
    'provider_unavailable',
    'not_implemented',
    'client_disconnected',
    'internal_error',
    'rate_limited',
    'targets_rate_limited',
    'invalid_request',
    'permission_denied',
  ])('%s, with a status of the upstream or without', kind => {
    const rules = rulesOf()
    const state = newState()
    state.failed(failure(kind), rules, NOW)
    state.failed(failure(kind, { upstreamStatus: 503 }), rules, NOW)
    expect([state.availability(rules, NOW), state.failures]).toEqual(['healthy', 0])
  })

  test.each([302, 400, 403, 404, 409, 422, 501])('status %d', status => {
    const rules = rulesOf()
    const state = newState()
    state.failed(answered(status), rules, NOW)
    expect([state.availability(rules, NOW), state.failures]).toEqual(['healthy', 0])
  })
})

describe('the cooldown block', () => {
  test('`enabled: false` starts none, and hides one that runs', () => {
    expect(cooldownAfter(answered(503), { enabled: false }).secs).toBe(0)
    const state = newState()
    state.failed(answered(503), rulesOf(), NOW)
    expect(state.availability(rulesOf({ cooldown: { enabled: false } }), NOW)).toBe('healthy')
    expect(state.report(rulesOf({ cooldown: { enabled: false } }), NOW).reason).toBeUndefined()
  })

  test('`default_seconds` is its length, and 0 starts none without Retry-After', () => {
    expect(cooldownAfter(answered(503), { default_seconds: 7 }).secs).toBe(7)
    expect(cooldownAfter(answered(503), { default_seconds: 0 }).secs).toBe(0)
    expect(cooldownAfter(answered(503, 9), { default_seconds: 0 }).secs).toBe(9)
  })

  test('Retry-After replaces the default, shorter or longer, on any status that triggers', () => {
    expect(cooldownAfter(answered(429, 180)).secs).toBe(180)
    expect(cooldownAfter(answered(503, 2)).secs).toBe(2)
    expect(cooldownAfter(answered(404, 180)).secs).toBe(0)
  })

  test('Retry-After is capped at `max_seconds`; the default is not', () => {
    expect(cooldownAfter(answered(429, 86_400)).secs).toBe(600)
    expect(cooldownAfter(answered(429, 86_400), { max_seconds: 45 }).secs).toBe(45)
    expect(cooldownAfter(answered(429), { max_seconds: 5 }).secs).toBe(30)
  })

  test('Retry-After: 0 is no length, and leaves the default', () => {
    expect(cooldownAfter(answered(429, 0)).secs).toBe(30)
  })

  test('`honor_retry_after: false` takes the default always', () => {
    expect(cooldownAfter(answered(429, 180), { honor_retry_after: false }).secs).toBe(30)
  })

  test('`trigger_on_timeout: false` lets timeouts pass, and only them', () => {
    const cooldown = { trigger_on_timeout: false }
    expect(cooldownAfter(failure('timeout'), cooldown).secs).toBe(0)
    expect(cooldownAfter(failure('transport_error'), cooldown).secs).toBe(30)
    expect(cooldownAfter(answered(408), cooldown).secs).toBe(30)
  })

  test.each<ErrorName>([
    'transport_error',
    'stream_aborted',
    'upstream_decode_error',
    'upstream_in_band_error',
    'upstream_error',
  ])('`trigger_on_transport: false` lets %s pass, and timeouts not', kind => {
    const cooldown = { trigger_on_transport: false }
    expect(cooldownAfter(failure(kind), cooldown).secs).toBe(0)
    expect(cooldownAfter(failure('timeout'), cooldown).secs).toBe(30)
  })

  test('its rules are made once a document', () => {
    const model = DirectModel.parse({ display_name: 'a', provider: 'vllm', model_name: 'm', provider_key_id: 'pk' })
    expect(healthRules(model)).toBe(healthRules(model))
    expect(healthRules(structuredClone(model))).not.toBe(healthRules(model))
  })
})

describe('a running cooldown', () => {
  test('ends when its time is over, to the millisecond', () => {
    const rules = rulesOf()
    const state = newState()
    state.failed(answered(500), rules, NOW)
    expect(state.availability(rules, NOW + 29_999)).toBe('cooldown')
    expect(state.availability(rules, NOW + 30_000)).toBe('healthy')
    expect(state.report(rules, NOW + 30_000)).toMatchObject({
      availability: 'healthy',
      cooldownUntil: undefined,
      reason: undefined,
    })
  })

  test('is prolonged by a later failure, and never shortened', () => {
    const rules = rulesOf()
    const state = newState()
    state.failed(answered(429, 100), rules, NOW)
    state.failed(answered(503), rules, NOW + 1_000)
    expect(state.report(rules, NOW + 1_000)).toMatchObject({ cooldownUntil: NOW + 100_000, reason: 'upstream_rate_limited' })
    state.failed(answered(503), rules, NOW + 99_000)
    expect(state.report(rules, NOW + 99_000)).toMatchObject({ cooldownUntil: NOW + 129_000, reason: 'upstream_server_error' })
  })

  test('is ended by a success', () => {
    const rules = rulesOf()
    const state = newState()
    state.failed(answered(429, 100), rules, NOW)
    state.succeeded()
    expect(state.availability(rules, NOW)).toBe('healthy')
  })

  test('is ended by a clock that was set back, and begins anew with the next failure', () => {
    const rules = rulesOf()
    const state = newState()
    state.failed(answered(503), rules, NOW)
    const hourAgo = NOW - 3_600_000
    expect(state.availability(rules, hourAgo)).toBe('healthy')
    state.failed(answered(503), rules, hourAgo)
    expect(state.report(rules, hourAgo).cooldownUntil).toBe(hourAgo + 30_000)
  })

  test('is neither started nor ended by a check', () => {
    const rules = rulesOf({ background_model_check: CHECK })
    const state = newState()
    state.checked(failed, NOW)
    expect(state.report(rules, NOW).cooldownUntil).toBeUndefined()
    state.failed(answered(429), rules, NOW)
    state.checked(passed, NOW)
    expect(state.availability(rules, NOW)).toBe('cooldown')
  })
})

describe('consecutive failures', () => {
  test('are counted, also where no cooldown follows, and reset by a success', () => {
    const rules = rulesOf({ cooldown: { enabled: false } })
    const health = createModelHealth()
    expect(health.failures('m1')).toBe(0)
    const state = health.of('m1')
    for (const error of [answered(503), failure('timeout'), failure('transport_error'), answered(401)])
      state.failed(error, rules, NOW)
    expect([state.failures, health.failures('m1')]).toEqual([4, 4])
    state.succeeded()
    expect(health.failures('m1')).toBe(0)
  })

  test('do not depend on the statuses that the operator lists', () => {
    const rules = rulesOf({ cooldown: { trigger_statuses: [404] } })
    const state = newState()
    state.failed(answered(404), rules, NOW)
    expect(state.failures).toBe(0)
    state.failed(answered(503), rules, NOW)
    expect(state.failures).toBe(1)
  })
})

describe('a failed check', () => {
  const rules = rulesOf({ background_model_check: CHECK })

  test('makes the model unhealthy until it is older than `stale_after_seconds`', () => {
    const state = newState()
    state.checked(failed, NOW)
    expect(state.availability(rules, NOW + 60_000)).toBe('unhealthy')
    expect(state.availability(rules, NOW + 60_001)).toBe('healthy')
    expect(state.report(rules, NOW + 60_001)).toEqual({
      availability: 'healthy',
      cooldownUntil: undefined,
      lastCheckedAt: NOW,
      lastCheckStatus: 503,
      reason: undefined,
    })
  })

  test('holds while the next check waits or runs, however long, and not for a verdict that was stale before', () => {
    const state = newState()
    state.checked(failed, NOW)
    state.checkDue(NOW + 60_000)
    state.checkDue(NOW + 90_000)
    expect(state.availability(rules, NOW + 600_000)).toBe('unhealthy')
    state.checkStarted(NOW + 600_000)
    expect(state.availability(rules, NOW + 660_000)).toBe('unhealthy')
    expect(state.availability(rules, NOW + 660_001)).toBe('healthy')
    state.checked(passed, NOW + 600_000)
    expect(state.availability(rules, NOW + 600_000)).toBe('healthy')
    state.checked(failed, NOW + 700_000)
    expect(state.availability(rules, NOW + 700_000 + 60_001)).toBe('healthy')
    state.checkDue(NOW + 700_000 + 60_001)
    expect(state.availability(rules, NOW + 700_000 + 60_001)).toBe('healthy')
  })

  test('is kept fresh by the next one', () => {
    const state = newState()
    state.checked(failed, NOW)
    state.checked(failed, NOW + 60_000)
    expect(state.availability(rules, NOW + 120_000)).toBe('unhealthy')
  })

  test.each([
    ['a check that passes', (state: ModelState) => state.checked(passed, NOW)],
    ['a request that is answered', (state: ModelState) => state.succeeded()],
    ['the end of the checks', (state: ModelState) => state.unchecked()],
  ])('is cleared by %s', (_what, clear) => {
    const state = newState()
    state.checked(failed, NOW)
    clear(state)
    expect(state.availability(rules, NOW)).toBe('healthy')
    expect(state.report(rules, NOW).reason).toBeUndefined()
  })

  test('means nothing under rules without checks', () => {
    const state = newState()
    state.checked(failed, NOW)
    for (const other of [rulesOf(), rulesOf({ background_model_check: { ...CHECK, enabled: false } })]) {
      expect(state.availability(other, NOW)).toBe('healthy')
      expect(state.report(other, NOW)).toMatchObject({ lastCheckedAt: undefined, lastCheckStatus: undefined, reason: undefined })
    }
  })

  test('is no failure of a request', () => {
    const state = newState()
    state.checked(failed, NOW)
    expect(state.failures).toBe(0)
  })

  test('of a model in cooldown: groups are told unhealthy, views show the cooldown', () => {
    const state = newState()
    state.checked(failed, NOW)
    state.failed(answered(429), rules, NOW)
    expect(state.availability(rules, NOW)).toBe('unhealthy')
    expect(state.report(rules, NOW)).toEqual({
      availability: 'cooldown',
      cooldownUntil: NOW + 30_000,
      lastCheckedAt: NOW,
      lastCheckStatus: 503,
      reason: 'upstream_rate_limited',
    })
    expect(state.report(rules, NOW + 30_000)).toMatchObject({ availability: 'unhealthy', reason: 'background_check_failed' })
  })
})

describe('an ignored check', () => {
  const rules = rulesOf({ background_model_check: CHECK })

  test('is recorded and leaves the model healthy', () => {
    const state = newState()
    state.checked(ignored, NOW)
    expect(state.report(rules, NOW)).toEqual({
      availability: 'healthy',
      cooldownUntil: undefined,
      lastCheckedAt: NOW,
      lastCheckStatus: 429,
      reason: 'ignored_transient_error',
    })
    state.checked(passed, NOW + 1)
    expect(state.report(rules, NOW + 1).reason).toBeUndefined()
  })

  test('neither clears nor prolongs the mark of an earlier one', () => {
    const state = newState()
    state.checked(failed, NOW)
    state.checked(ignored, NOW + 30_000)
    expect(state.report(rules, NOW + 30_000)).toMatchObject({
      availability: 'unhealthy',
      lastCheckStatus: 429,
      reason: 'background_check_failed',
    })
    expect(state.report(rules, NOW + 60_001)).toMatchObject({ availability: 'healthy', reason: 'ignored_transient_error' })
  })
})

describe('latency', () => {
  test('is the first measurement, then an average in which the newest weighs 0.3', () => {
    const state = newState()
    expect(state.latencyMs).toBeUndefined()
    state.measured(100)
    expect(state.latencyMs).toBe(100)
    state.measured(200)
    expect(state.latencyMs).toBeCloseTo(130, 10)
    state.measured(0)
    expect(state.latencyMs).toBeCloseTo(91, 10)
  })
})

describe('states', () => {
  test('are kept by id: one model is one state, another is another', () => {
    const health = createModelHealth()
    expect(health.of('m1')).toBe(health.of('m1'))
    expect(health.of('m2')).not.toBe(health.of('m1'))
  })

  test('of models that are gone are forgotten once nothing is under way there', () => {
    const health = createModelHealth()
    const gone = health.of('gone')
    const busy = health.of('busy')
    const kept = health.of('kept')
    busy.inFlight = 1
    const isKnown = (id: string) => id === 'kept'
    health.prune(isKnown)
    expect(health.of('busy')).toBe(busy)
    expect(health.of('kept')).toBe(kept)
    expect(health.of('gone')).not.toBe(gone)
    busy.inFlight = 0
    health.prune(isKnown)
    expect(health.of('busy')).not.toBe(busy)
  })
})
