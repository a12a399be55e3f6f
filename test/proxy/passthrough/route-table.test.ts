import { describe, expect, test } from 'bun:test'
import { compileRoutes, hostNameOf } from '../../../src/proxy/passthrough/route-table.ts'
import { PassthroughRoute } from '../../../src/resources/passthrough-route.ts'

type Members = Record<string, unknown>

/** A table of routes, each by its id. */
function tableOf(routes: Record<string, Members>) {
  return compileRoutes(
    Object.entries(routes).map(([id, members]) => ({
      id,
      value: PassthroughRoute.parse({ name: id, target_url: 'http://10.0.0.5', provider_key_id: 'pk', ...members }),
    })),
  )
}

describe('prefixes', () => {
  const table = tableOf({
    up: { path_prefix: '/up' },
    deeper: { path_prefix: '/up/deeper/' },
    other: { path_prefix: '/other' },
    off: { path_prefix: '/off', enabled: false },
    hosted: { path_prefix: '/hosted', hosts: ['a.example.com'] },
  })
  test.each([
    ['/up', 'up'],
    ['/up/', 'up'],
    ['/up/x', 'up'],
    ['/up/deep', 'up'],
    ['/up/deeper', 'deeper'],
    ['/up/deeper/x/y', 'deeper'],
    ['/up/deeperx', 'up'],
    ['/other//x', 'other'],
    ['/upx', undefined],
    ['/u', undefined],
    ['/Up', undefined],
    ['/', undefined],
    ['//up', undefined],
    ['/up%2Fx', undefined],
    ['/off/x', undefined],
    ['/hosted/x', undefined],
  ])('%s leads to %p', (path, id) => {
    expect(table.ofPath(path)?.id).toBe(id)
  })

  test('the prefix / takes every path', () => {
    const all = tableOf({ all: { path_prefix: '/' }, up: { path_prefix: '/up' } })
    expect(['/', '/x', '//x', '/up/x'].map(path => all.ofPath(path)?.id)).toEqual(['all', 'all', 'all', 'up'])
  })

  test.each([
    ['a', 'b'],
    ['b', 'a'],
  ])('of two with one prefix the smallest id goes first, in whatever order they were written: %s, %s', (first, second) => {
    const table = tableOf({ [first]: { path_prefix: '/up' }, [second]: { path_prefix: '/up/' } })
    expect(table.ofPath('/up/x')?.id).toBe('a')
  })
})

describe('hosts', () => {
  const table = tableOf({
    named: { hosts: ['api.example.com', 'API2.example.com'] },
    below: { hosts: ['api.example.com'], path_prefix: '/v1' },
    pattern: { hosts: ['*.example.com'] },
    deep: { hosts: ['*.example.com'], path_prefix: '/deep' },
    off: { hosts: ['off.example.org'], enabled: false },
    plain: { path_prefix: '/plain' },
  })
  test.each<[string | null, string, string | undefined]>([
    ['api.example.com', '/x', 'named'],
    ['API.Example.COM:8080', '/x', 'named'],
    ['api2.example.com', '/plain', 'named'],
    ['api.example.com', '/v1/models', 'below'],
    ['api.example.com', '/v1beta', 'named'],
    ['other.example.com', '/v1/models', 'pattern'],
    ['other.example.com:443', '/deep/x', 'deep'],
    ['api.example.com', '/deep/x', 'deep'],
    ['a.b.example.com', '/x', undefined],
    ['example.com', '/x', undefined],
    ['.example.com', '/x', undefined],
    ['off.example.org', '/x', undefined],
    ['plain', '/plain', undefined],
    ['x/.example.com', '/x', undefined],
    ['user@api.example.com', '/x', undefined],
    ['evil.org#.example.com', '/x', undefined],
    ['[::1]:3000', '/x', undefined],
    ['', '/x', undefined],
    [null, '/x', undefined],
  ])('%p with %s leads to %p', (host, path, id) => {
    expect(table.ofHost(host, path)?.id).toBe(id)
  })

  test('none is looked at where no route asks for one', () => {
    expect(table.hasHosts).toBe(true)
    expect(tableOf({ plain: { path_prefix: '/x' }, off: { hosts: ['a.b'], enabled: false } }).hasHosts).toBe(false)
  })

  test.each([
    ['h', 'h'],
    ['H.test:', 'h.test'],
    ['h.test:99999999', 'h.test'],
    ['h.test.:80', 'h.test'],
    ['h..test', undefined],
    ['.', undefined],
    ['h.test:x', undefined],
    ['h.test:1:2', undefined],
    ['h\\x', undefined],
    ['h\n', undefined],
    ['hé', undefined],
  ])('%p names %p', (header, name) => {
    expect(hostNameOf(header)).toBe(name)
  })
})
