/** What a process of its own is needed for: an end without warning, a disk without room, a thread that dies. */

import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { SpendFile } from '../../src/budgets/spend-file.ts'
import { labelsOf, workbench } from './bench.ts'

const CHILD = join(import.meta.dir, 'gateway-child.ts')

let bench: ReturnType<typeof workbench>
beforeEach(() => {
  bench = workbench()
})
afterEach(() => bench.clean())

const spent = (path: string) => {
  const db = new Database(path, { readonly: true })
  try {
    const row = db.query<{ usd: number; pico: number; tokens: number }, []>('SELECT usd, pico, tokens FROM spend').get()
    return row ?? { usd: 0, pico: 0, tokens: 0 }
  } finally {
    db.close()
  }
}

test('after kill -9 at most the charges of the last second are missing, and none is there twice', async () => {
  let before = 0
  for (const charges of [1_500, 2_200]) {
    const child = Bun.spawn([process.execPath, CHILD, bench.path], { stdout: 'pipe', stderr: 'inherit' })
    // When each hundred was charged, in the child's own time.
    const seen: { charged: number; atMs: number }[] = []
    let text = ''
    for await (const chunk of child.stdout) {
      text += new TextDecoder().decode(chunk)
      for (const [, charged, atMs] of text.slice(0, text.lastIndexOf('\n') + 1).matchAll(/charged (\d+) at (\d+)/g)) {
        if (Number(charged) > (seen.at(-1)?.charged ?? 0)) seen.push({ charged: Number(charged), atMs: Number(atMs) })
      }
      if ((seen.at(-1)?.charged ?? 0) >= charges) child.kill('SIGKILL')
    }
    await child.exited
    const last = seen.at(-1) ?? { charged: 0, atMs: 0 }
    // All that was charged a second before the end is there; a hundred more may have been charged after the last line.
    const durable = seen.findLast(({ atMs }) => atMs <= last.atMs - 1_000)?.charged ?? 0
    const { pico, tokens } = spent(bench.path)
    expect(durable).toBeGreaterThan(0)
    expect(tokens - before).toBeGreaterThanOrEqual(durable)
    expect(tokens - before).toBeLessThan(last.charged + 100)
    expect(pico).toBe(tokens)
    before = tokens
  }
}, 60_000)

test('where the disk is full the process charges on, says so, and ends in good order', async () => {
  // 100 KiB may be written: enough for an empty file, too little for its log after some batches.
  const command = `trap '' XFSZ; ulimit -f 100; exec "$0" "$@"`
  const child = Bun.spawn(['sh', '-c', command, process.execPath, CHILD, bench.path, '3000'], {
    stdout: 'pipe',
    stderr: 'inherit',
  })
  const text = await new Response(child.stdout).text()
  expect(await child.exited).toBe(0)
  const charged = [...text.matchAll(/charged (\d+)/g)].length * 100
  expect(charged).toBeGreaterThan(0)
  // SQLite says that a write failed, or that there is no room, by where the limit is met.
  expect(text).toMatch(/health .*(is full; free space|cannot be used|cannot be opened)/)
  expect(spent(bench.path).tokens).toBeLessThan(charged + 100)
}, 60_000)

test('a thread that ends unasked is started again, and what it may have written is not written twice', async () => {
  const key = await bench.caller('sk-1')
  const { id } = await bench.add({ limit_tokens: 1_000 })
  const started: Worker[] = []
  const { Worker: Original } = globalThis
  globalThis.Worker = class extends Original {
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options)
      started.push(this)
    }
  }
  try {
    const { budgets, charge, status } = await bench.gateway()
    charge(labelsOf(key), { tokens: 10 })
    const flushing = budgets.flush()
    // It is gone before, while or after it has written: nobody can tell.
    started[0]?.terminate()
    await flushing
    charge(labelsOf(key), { tokens: 1 })
    expect(await budgets.flush()).toBe(true)
    expect(await budgets.flush()).toBe(true)
    expect(started).toHaveLength(2)
    expect(status(id).spent_tokens).toBe(11)
    expect(spent(bench.path).tokens).toBe(11)
    expect(budgets.health.state).toBe('ok')
  } finally {
    globalThis.Worker = Original
  }
})

test('a batch that was written and not acknowledged is written once', () => {
  const file = new SpendFile(bench.path)
  const place = { budgetId: 'b', measure: 'm' }
  const charge = { ...place, usd: 1, pico: 2, tokens: 3, startMs: 0, endMs: 1 }
  const batch = (number: number, since: number) =>
    file.exchange({
      writer: 'w',
      batch: number,
      charges: [charge],
      warnings: [],
      fileId: undefined,
      since,
      wanted: [],
      remembered: undefined,
      nowMs: 0,
    })
  const first = batch(1, 0)
  if (first.kind !== 'done') throw new Error(JSON.stringify(first))
  expect(batch(1, 0)).toMatchObject({ kind: 'done', until: first.until })
  expect(spent(bench.path)).toEqual({ usd: 1, pico: 2, tokens: 3 })
  expect(batch(2, first.until)).toMatchObject({ kind: 'done', spends: [{ ...place, usd: 2, pico: 4, tokens: 6 }] })
  file.close()
})
