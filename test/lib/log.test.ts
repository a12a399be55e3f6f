import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { createLog, type LogOptions, parseFilter, printable } from '../../src/lib/log.ts'

const AT = Date.parse('2026-03-01T12:00:00.250Z')

/** A log whose writes are kept; each is taken when the test says so, or at once. */
function openLog(options: Partial<LogOptions> & { holds?: boolean } = {}) {
  const writes: string[] = []
  const takes: ((error?: unknown) => void)[] = []
  const log = createLog({
    filter: 'trace',
    now: () => AT,
    sink: {
      isTerminal: false,
      write(text, done) {
        writes.push(text)
        if (options.holds) takes.push(done)
        else done()
      },
    },
    ...options,
  })
  return { log, writes, takes }
}

describe('a line', () => {
  test('has time, level, target, message and fields; what is absent is left out', () => {
    const { log, writes } = openLog()
    log.as('access').info('done', { path: '/a', status: 200, stream: true, none: undefined })
    expect(writes).toEqual(['2026-03-01T12:00:00.250Z  INFO access: done path="/a" status=200 stream=true\n'])
  })

  test('quotes and escapes what could end a value or a line', () => {
    const { log, writes } = openLog()
    log.warn('two\r\nlines', { a: 'say "hi" \\ ', b: 'x\ny', c: '\u001b[31m', d: 'grüße\u2028\u202e', e: '' })
    expect(writes).toEqual([
      '2026-03-01T12:00:00.250Z  WARN aisix: two lines a="say \\"hi\\" \\\\ " b="x\\ny" c="\\u001b[31m" d="grüße\\u2028\\u202e" e=""\n',
    ])
  })

  test('of any text is one line, and its value reads back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), text => {
        const { log, writes } = openLog()
        log.info('m', { text })
        const [, value = ''] = /^[^\n]* text=(".*")\n$/.exec(writes[0] ?? '') ?? []
        expect(JSON.parse(value)).toBe(text)
      }),
    )
  })

  test('as JSON has the same fields under the same names', () => {
    const { log, writes } = openLog({ format: 'json' })
    log.as('access').error('done', { path: '/a\n', status: 200, none: undefined })
    expect(JSON.parse(writes[0] ?? '')).toEqual({
      timestamp: '2026-03-01T12:00:00.250Z',
      level: 'error',
      target: 'access',
      message: 'done',
      path: '/a\n',
      status: 200,
    })
  })
})

describe('a filter', () => {
  test.each([
    ['info', 'proxy', ['info', 'warn', 'error']],
    ['warn,proxy=debug', 'proxy', ['debug', 'info', 'warn', 'error']],
    ['warn,proxy=debug', 'store', ['warn', 'error']],
    ['warn,store=off', 'store::sqlite', []],
    ['proxy=info', 'store', ['error']],
    ['', 'store', ['info', 'warn', 'error']],
  ] as const)('%p lets %s say %p', (filter, target, expected) => {
    const { log, writes } = openLog({ filter })
    const speaking = log.as(target)
    for (const level of ['trace', 'debug', 'info', 'warn', 'error'] as const) {
      speaking[level]('x')
      expect(speaking.enabled(level)).toBe((expected as readonly string[]).includes(level))
    }
    expect(writes).toHaveLength(expected.length)
  })

  test('that is not understood is refused', () => {
    expect(() => parseFilter('loud')).toThrow('expected one of')
    expect(() => parseFilter('proxy=loud')).toThrow('expected one of')
  })
})

describe('the queue', () => {
  test('while one write is under way the next lines wait, and go out together in their order', () => {
    const { log, writes, takes } = openLog({ holds: true })
    for (const line of ['a', 'b', 'c']) log.info(line)
    expect(writes).toHaveLength(1)
    takes[0]?.()
    expect(writes).toHaveLength(2)
    expect(writes[1]?.match(/aisix: (\w)/g)).toEqual(['aisix: b', 'aisix: c'])
  })

  test('lines that nobody takes are dropped beyond its bound, and the next that fits says how many', () => {
    const { log, writes, takes } = openLog({ holds: true })
    const large = 'x'.repeat(1024 * 1024)
    for (let at = 0; at < 6; at += 1) log.info(large)
    for (let at = 0; at < 3; at += 1) takes[at]?.()
    expect(writes.at(-1)).toMatch(/lines were lost.* count=3\n$/)
  })

  test('a write that fails is told with the next', () => {
    const { log, writes, takes } = openLog({ holds: true })
    log.info('lost')
    takes[0]?.(new Error('disk full'))
    log.info('next')
    takes[1]?.()
    expect(writes.at(-1)).toContain('lines were lost')
  })

  test('lines wait for one another where they may, errors and a flush for nobody', async () => {
    const { log, writes } = openLog({ gatherMs: 60_000 })
    log.info('a')
    log.info('b')
    expect(writes).toEqual([])
    log.error('c')
    expect(writes).toHaveLength(1)
    expect(writes[0]?.split('\n')).toHaveLength(4)
    log.info('d')
    await log.flush(1_000)
    expect(writes[1]).toContain('aisix: d')
  })

  test('lines that may wait go out by themselves', async () => {
    const out = Promise.withResolvers<string>()
    const log = createLog({
      filter: 'info',
      gatherMs: 1,
      sink: { isTerminal: false, write: text => out.resolve(text) },
    })
    log.info('a')
    expect(await out.promise).toContain('aisix: a')
  })

  test('a flush gives up on a reader that does not read', async () => {
    const { log } = openLog({ holds: true })
    log.info('a')
    await log.flush(5)
  })
})

test('printable cuts and escapes', () => {
  expect(printable('a\u0000\n')).toBe('a\\u0000\\u000a')
  expect(printable('x'.repeat(300))).toHaveLength(256)
})
