import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseCertificates } from '../../src/lib/pem.ts'

const read = (name: string) => readFileSync(join(import.meta.dir, '../fixtures/tls', name), 'utf8')
const cert = read('server.crt')
const key = read('server.key')
const damaged = cert.replace(/\n.{20}/, '\nAAAA')

const countOf = (text: string, alone = false) => {
  const found = parseCertificates(text, { alone })
  return 'certificates' in found ? found.certificates.length : found
}

describe('certificates', () => {
  test.each([
    ['one', cert, 1],
    ['a chain', cert + read('expired.crt'), 2],
    ['with CRLF and blanks around it', `\r\n  ${cert.replaceAll('\n', '\r\n')}\n\n`, 1],
  ])('%s is read, and is alone', (_case, text, count) => {
    expect(countOf(text)).toBe(count)
    expect(countOf(text, true)).toBe(count)
  })

  test.each([
    ['nothing', ''],
    ['some text', 'garbage'],
    ['a private key', key],
    ['the end of a block alone', '-----END CERTIFICATE-----'],
  ])('%s holds none', (_case, text) => {
    expect(countOf(text)).toEqual({ problem: 'none' })
  })

  test.each([
    ['the first', damaged, 1],
    ['the second', cert + damaged, 2],
    ['one that is cut short', cert + cert.slice(0, 200), 2],
    ['one without content', '-----BEGIN CERTIFICATE----------END CERTIFICATE-----', 1],
    ['one with a private key inside', cert.replace('\n-----END', `\n${key}-----END`), 1],
  ])('%s being damaged is told by its number', (_case, text, number) => {
    expect(countOf(text)).toEqual({ problem: 'damaged', number })
  })

  test.each([
    ['a private key before', key + cert],
    ['a private key behind', cert + key],
    ['a comment', `# our authority\n${cert}`],
  ])('%s is beside them, which counts only where they must be alone', (_case, text) => {
    expect(countOf(text)).toBe(1)
    expect(countOf(text, true)).toEqual({ problem: 'other' })
  })

  test('a megabyte of blocks that begin and never end is refused at the first', () => {
    expect(countOf('-----BEGIN CERTIFICATE-----\n'.repeat(40_000))).toEqual({ problem: 'damaged', number: 1 })
  })
})
