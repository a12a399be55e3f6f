import { describe, expect, test } from 'bun:test'
import { type HealthPath, health } from '../../src/status/health.ts'

const url = (path: string, query: string) => new URL(`http://127.0.0.1${path}${query}`)

const LIVE_OK = '[+]ping ok\n[+]shutdown ok\nlivez check passed\n'
const LIVE_DRAINING = '[+]ping ok\n[-]shutdown failed: reason withheld\nlivez check failed\n'
const READY_OK = '[+]shutdown ok\n[+]config ok\nreadyz check passed\n'
const READY_DRAINING = '[-]shutdown failed: draining\n[+]config ok\nreadyz check failed\n'
const READY_NO_CONFIG = '[+]shutdown ok\n[-]config failed: not ready\nreadyz check failed\n'
const READY_NEITHER = '[-]shutdown failed: draining\n[-]config failed: not ready\nreadyz check failed\n'

describe('health', () => {
  const table: [HealthPath, string, boolean, boolean, number, string][] = [
    ['/livez', '', false, true, 200, 'ok'],
    ['/livez', '?other', false, true, 200, 'ok'],
    ['/livez', '?verbose', false, true, 200, LIVE_OK],
    ['/livez', '?verbose=', false, true, 200, LIVE_OK],
    ['/livez', '?verbose=false', false, true, 200, LIVE_OK],
    ['/livez', '', false, false, 200, 'ok'],
    ['/livez', '', true, true, 503, LIVE_DRAINING],
    ['/livez', '?verbose', true, true, 503, LIVE_DRAINING],
    ['/readyz', '', false, true, 200, 'ok'],
    ['/readyz', '?verbose', false, true, 200, READY_OK],
    ['/readyz', '', true, true, 503, READY_DRAINING],
    ['/readyz', '?verbose', true, true, 503, READY_DRAINING],
    ['/readyz', '', false, false, 503, READY_NO_CONFIG],
    ['/readyz', '?verbose', true, false, 503, READY_NEITHER],
  ]
  test.each(table)('%s%s, draining %p, configured %p: %i', async (path, query, isDraining, hasConfig, status, body) => {
    const response = health(path, url(path, query), { isDraining }, hasConfig)
    expect(response.status).toBe(status)
    expect(await response.text()).toBe(body)
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(response.headers.get('x-content-type-options')).toBe('nosniff')
  })
})
