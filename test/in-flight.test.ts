import { describe, expect, test } from 'bun:test'
import { InFlight } from '../src/in-flight.ts'

const made = (name: string) => ({ name, slot: -1 })
const names = (inFlight: InFlight<ReturnType<typeof made>>) => [...inFlight].map(({ name }) => name).sort()

describe('what is in flight', () => {
  test('is what was added and not deleted, however the two alternate', () => {
    const inFlight = new InFlight<ReturnType<typeof made>>()
    const expected = new Set<ReturnType<typeof made>>()
    // Park and Miller's generator: the same run every time.
    let seed = 4_711
    const random = (below: number) => {
      seed = (seed * 16_807) % 2_147_483_647
      return seed % below
    }
    for (let step = 0; step < 5_000; step += 1) {
      const present = [...expected]
      if (random(2) === 0 || present.length === 0) {
        const each = made(String(step))
        inFlight.add(each)
        expected.add(each)
      } else {
        const each = present[random(present.length)]
        if (!each) continue
        inFlight.delete(each)
        expected.delete(each)
      }
      expect(inFlight.size).toBe(expected.size)
      if (step % 100 === 0) expect(names(inFlight)).toEqual([...expected].map(({ name }) => name).sort())
    }
    for (const each of expected) inFlight.delete(each)
    expect([inFlight.size, names(inFlight)]).toEqual([0, []])
  })

  test('knows each once, and what it does not know it cannot lose', () => {
    const inFlight = new InFlight<ReturnType<typeof made>>()
    const [one, other] = [made('one'), made('other')]
    inFlight.add(one)
    inFlight.add(one)
    inFlight.delete(other)
    expect([inFlight.size, names(inFlight)]).toEqual([1, ['one']])
    inFlight.delete(one)
    inFlight.delete(one)
    inFlight.add(other)
    expect([inFlight.size, names(inFlight)]).toEqual([1, ['other']])
  })
})
