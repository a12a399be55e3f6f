import { describe, expect, test } from 'bun:test'
import { OVERFLOW, Registry } from '../../src/telemetry/registry.ts'
import { samplesOf } from './page.ts'

const FAMILIES = [
  { name: 'a_total', type: 'counter', help: 'Counts\\these\nthings.', labels: ['k', 'l'] },
  { name: 'b_seconds', type: 'summary', help: 'Takes.', labels: ['k'] },
  { name: 'c_seconds', type: 'histogram', help: 'Spreads.', labels: ['k'], bounds: [0.1, 1] },
  { name: 'd', type: 'gauge', help: 'Is.', labels: [] },
] as const

const registry = (seriesMax = 1_000) => new Registry(seriesMax, FAMILIES)

test('the values of a label are those of the series that there are', () => {
  const metrics = registry()
  for (const [k, l] of [
    ['x', '1'],
    ['x', '2'],
    ['y', '1'],
  ])
    metrics.series('a_total', [k ?? '', l ?? ''])
  expect([...metrics.values('a_total', 'k')]).toEqual(['x', 'y'])
  expect([...metrics.values('a_total', 'm'), ...metrics.values('b_seconds', 'k'), ...metrics.values('z', 'k')]).toEqual([])
})

describe('the page', () => {
  test('has a HELP and a TYPE line a family, and nothing of families without series', () => {
    const metrics = registry()
    expect(metrics.render()).toBe('')
    metrics.series('a_total', ['x', 'y']).value += 2
    expect(metrics.render()).toBe('# HELP a_total Counts\\\\these\\nthings.\n# TYPE a_total counter\na_total{k="x",l="y"} 2\n')
  })

  test('tells a summary by its sum and count, without quantiles', () => {
    const metrics = registry()
    for (const value of [0.5, 1.25]) metrics.series('b_seconds', ['x']).observe(value)
    expect(metrics.render()).toEndWith('b_seconds_sum{k="x"} 1.75\nb_seconds_count{k="x"} 2\n')
  })

  test('has each series once, also when another page clears a family and tells it anew meanwhile', () => {
    const metrics = registry(10_000)
    const tell = () => {
      metrics.clear('a_total')
      for (let at = 0; at < 2_000; at += 1) metrics.series('a_total', [`key-${at}`, 'long '.repeat(20)]).value = at
    }
    tell()
    const pages = metrics.pages()
    let page: string = pages.next().value ?? ''
    tell()
    for (const piece of pages) page += piece
    const keys = samplesOf(page).map(({ labels }) => labels.k)
    expect(keys).toHaveLength(2_000)
    expect(new Set(keys).size).toBe(2_000)
  })

  test('a value on a bound lies in the bucket of that bound, and buckets add up', () => {
    const metrics = registry()
    for (const value of [0.1, 0.11, 1, 5]) metrics.series('c_seconds', ['x']).observe(value)
    expect(metrics.render().split('\n').slice(2)).toEqual([
      'c_seconds_bucket{k="x",le="0.1"} 1',
      'c_seconds_bucket{k="x",le="1"} 3',
      'c_seconds_bucket{k="x",le="+Inf"} 4',
      'c_seconds_sum{k="x"} 6.21',
      'c_seconds_count{k="x"} 4',
      '',
    ])
  })

  test('escapes what labels may hold, and says unknown where there is nothing', () => {
    const metrics = registry()
    metrics.series('a_total', ['a\\b"c\nd', '']).value += 1
    expect(metrics.render()).toContain('a_total{k="a\\\\b\\"c\\nd",l="unknown"} 1\n')
  })

  test('has no braces where a family has no labels', () => {
    const metrics = registry()
    metrics.series('d', []).value = 0.5
    expect(metrics.render()).toEndWith('\nd 0.5\n')
  })

  test('comes in pieces whose sum is the page', () => {
    const metrics = registry(100_000)
    for (let at = 0; at < 5_000; at += 1) metrics.series('a_total', [`key-${at}`, 'y']).value = at
    const pieces = [...metrics.pages()]
    expect(pieces.length).toBeGreaterThan(2)
    expect(pieces.join('')).toBe(metrics.render())
    expect(samplesOf(metrics.render())).toHaveLength(5_000)
  })
})

describe('the bound on series', () => {
  test('what comes after the last is counted under `other`, and nothing is lost', () => {
    const metrics = registry(10)
    for (let at = 0; at < 100; at += 1) metrics.series('a_total', [`key-${at}`, 'y']).value += 1
    const samples = samplesOf(metrics.render())
    expect(samples).toHaveLength(11)
    expect(samples.find(({ labels }) => labels.k === OVERFLOW)).toMatchObject({ labels: { k: OVERFLOW, l: OVERFLOW }, value: 90 })
    expect(samples.reduce((sum, { value }) => sum + value, 0)).toBe(100)
    expect(metrics.overflows).toBe(90)
  })

  test('a histogram counts as all of its lines', () => {
    const metrics = registry()
    metrics.series('c_seconds', ['x'])
    expect(metrics.size).toBe(5)
    metrics.series('b_seconds', ['x'])
    expect(metrics.size).toBe(7)
  })
})

describe('series of what is gone', () => {
  test('are dropped by their label and make room; others and `other` stay', () => {
    const metrics = registry(2)
    const epoch = metrics.epoch
    metrics.series('a_total', ['gone', '1']).value = 1
    metrics.series('a_total', ['kept', '1']).value = 2
    metrics.series('a_total', ['late', '1']).value = 3
    metrics.drop('k', value => value === 'kept')
    expect(samplesOf(metrics.render()).map(({ labels, value }) => [labels.k, value])).toEqual([
      ['kept', 2],
      [OVERFLOW, 3],
    ])
    expect(metrics.epoch).toBeGreaterThan(epoch)
    const again = metrics.epoch
    metrics.drop('k', () => true)
    expect(metrics.epoch).toBe(again)
  })
})

test('a family that was never declared is a mistake of ours', () => {
  expect(() => registry().series('x', [])).toThrow('no metric family x')
})
