import { describe, expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import { openApiDocument } from '../../src/admin/openapi.ts'
import { referencePage } from '../../src/admin/reference-page.ts'
import { isRecord, openAdmin } from './harness.ts'

const load = () => openAdmin().call('GET', '/admin/openapi-scalar', undefined, {})

describe('/admin/openapi-scalar', () => {
  test('is HTML that loads nothing: no script, and every link stays on this page or this host', async () => {
    const { status, headers, text } = await load()
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(text).not.toMatch(/<(script|link|img|iframe|object|embed|base|form)\b/i)
    expect(text).not.toMatch(/@import|url\(|\bsrc=/i)
    const links = [...text.matchAll(/\bhref="([^"]*)"/g)].map(([, href = '']) => href)
    expect(links.length).toBeGreaterThan(20)
    for (const href of links) expect(href).toMatch(/^(#|\/admin\/)/)
  })

  test('forbids the browser everything but the style that is in it', async () => {
    const { headers, text } = await load()
    const style = /<style>([\s\S]*?)<\/style>/.exec(text)?.[1] ?? ''
    const hash = createHash('sha256').update(style).digest('base64')
    const policy = headers.get('content-security-policy') ?? ''
    expect(policy).toStartWith(`default-src 'none'; style-src 'sha256-${hash}'`)
    expect(text).not.toMatch(/\bstyle="|\bon[a-z]+="/)
  })

  test('shows every operation, member, parameter and status of the OpenAPI document', async () => {
    const admin = openAdmin()
    const { text } = await admin.call('GET', '/admin/openapi-scalar', undefined, {})
    const { body } = await admin.call('GET', '/admin/openapi.json', undefined, {})
    if (!isRecord(body) || !isRecord(body.paths) || !isRecord(body.components)) throw new Error('expected a document')
    for (const operations of Object.values(body.paths)) {
      if (!isRecord(operations)) throw new Error('expected operations')
      for (const operation of Object.values(operations)) {
        if (!isRecord(operation) || !isRecord(operation.responses)) throw new Error('expected an operation')
        expect(text).toContain(`<article id="${operation.operationId}">`)
        expect(text).toContain(`href="#${operation.operationId}"`)
      }
    }
    for (const member of [
      'key_hash',
      'output_per_1k',
      'default_headers',
      'stream_usage',
      'uptime_seconds',
      'error_msg',
      'verbose',
      'hash_on',
      'trigger_statuses',
      'stale_after_seconds',
      'scope_ref',
      'days_of_week',
      'cooldown_until',
    ]) {
      expect(text).toContain(`${member}</code>`)
    }
  })

  test('every link to a place on the page has its place, and no place is there twice', async () => {
    const { text } = await load()
    const ids = [...text.matchAll(/\bid="([^"]*)"/g)].map(([, id = '']) => id)
    expect(new Set(ids).size).toBe(ids.length)
    for (const [, target = ''] of text.matchAll(/href="#([^"]*)"/g)) expect(ids).toContain(target)
  })

  test('shows the members of each form and of each kind of condition under its name, and an example of each form', async () => {
    const { text } = await load()
    const card = text.slice(
      text.indexOf('<article id="createRateLimitPolicy">'),
      text.indexOf('<article id="getRateLimitPolicy">'),
    )
    for (const form of ['ClassicPolicy', 'ConditionalPolicy']) expect(card).toContain(`<h5>${form}</h5>`)
    const place = 'conditions[].children[].children[].'
    expect(card).toContain(`<span class="prefix">${place}</span>operator</code>`)
    for (const kind of ['Comparison', 'Group']) expect(card).toContain(`<code>conditions[]</code> as ${kind}`)
    expect(card).toContain('<h4>Example 2</h4>')
  })

  test('names the type of an object whose members depend on each other, and shows bounds of members and entries', async () => {
    const { text } = await load()
    const row = (member: string) => new RegExp(`<tr><td><code>(?:<span[^>]*></span>)?${member}</code>.*?</tr>`).exec(text)?.[0]
    expect(row('background_model_check')).toContain('</td><td>object</td><td>')
    expect(row('limits')).toContain('</td><td>object</td><td>At least one limit.')
    expect(row('limits')).toContain('At least 1 member.')
    expect(row('group_by')).toContain('None twice.')
  })

  test('shows calls as an operator pastes them, with the key from the environment', async () => {
    const { text } = await load()
    const shown = text.replaceAll('&#34;', '"').replaceAll('&#39;', "'")
    expect(shown).toContain(
      'curl -sS -X POST "http://127.0.0.1:3001/admin/v1/provider_keys" \\\n  -H "Authorization: Bearer $AISIX_ADMIN_KEY"',
    )
    expect(shown).toContain('"http://127.0.0.1:3001/admin/v1/apikeys/$ID/rotate"')
    expect(shown).toContain('"http://127.0.0.1:3001/playground/chat/completions" \\\n  -H "Authorization: Bearer $AISIX_API_KEY"')
  })

  test('opens and closes its elements in order', async () => {
    const { text } = await load()
    const open: string[] = []
    for (const [, close, name = ''] of text.replace(/<style>[\s\S]*?<\/style>/, '').matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
      if (['meta', 'br'].includes(name)) continue
      if (close === '') open.push(name)
      else expect(open.pop()).toBe(name)
    }
    expect(open).toEqual([])
  })

  test('escapes what stands in the document', () => {
    const document = openApiDocument([])
    const { html } = referencePage({ ...document, info: { ...document.info, title: '<script>"&\'</script>' } })
    expect(html).not.toContain('<script>')
    expect(html).toContain('&#60;script&#62;')
  })
})
