import { describe, expect, test } from 'bun:test'
import { BackupError } from '../../src/backup/backup.ts'
import type { Backups } from '../../src/backup/online.ts'
import { ADMIN_KEY, messageOf, openAdmin } from './harness.ts'

const made = () => ({
  bytes: 3,
  sha256: 'ab',
  madeAt: '2026-03-01T12:00:00.750Z',
  body: new Response('tar').body ?? new ReadableStream(),
})
const backups = (more: Partial<Backups> = {}): Backups & { asked: unknown[] } => {
  const asked: unknown[] = []
  return {
    asked,
    isBusy: false,
    make: async includes => {
      asked.push(includes)
      return made()
    },
    ...more,
  }
}

describe('GET /admin/v1/backup', () => {
  test('streams what was made, under a name and with its checksum, and says so in the log', async () => {
    const of = backups()
    const admin = openAdmin({ backups: of, addressOf: () => '192.0.2.7' })
    const answer = await admin.call('GET', '/admin/v1/backup')
    expect([answer.status, answer.text]).toEqual([200, 'tar'])
    expect(answer.headers.get('content-type')).toBe('application/x-tar')
    expect(answer.headers.get('content-disposition')).toBe('attachment; filename="aisix-backup-20260301T120000Z.tar"')
    expect(answer.headers.get('x-aisix-sha256')).toBe('ab')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(admin.lines.join()).toContain('backup made actor="admin_keys[0]" address="192.0.2.7"')
    await admin.call('GET', '/admin/v1/backup?include=usage')
    expect(of.asked).toEqual([{ usage: false }, { usage: true }])
  })

  test('makes none for the head alone', async () => {
    const of = backups()
    const answer = await openAdmin({ backups: of }).call('HEAD', '/admin/v1/backup')
    expect([answer.status, answer.headers.get('content-type'), of.asked]).toEqual([200, 'application/x-tar', []])
  })

  test('makes one at a time, says why there is none, and where there can be none', async () => {
    const busy = await openAdmin({ backups: backups({ isBusy: true }) }).call('GET', '/admin/v1/backup')
    expect([busy.status, messageOf(busy)]).toEqual([409, 'a backup is being made; come back when it is done'])
    const make = () => Promise.reject(new BackupError('the disk has no room'))
    const failed = await openAdmin({ backups: backups({ make }) }).call('GET', '/admin/v1/backup')
    expect([failed.status, messageOf(failed)]).toEqual([503, 'backup failed: the disk has no room'])
    const none = await openAdmin().call('GET', '/admin/v1/backup', undefined, { authorization: `Bearer ${ADMIN_KEY}` })
    expect(none.status).toBe(404)
  })
})
