import { expect, test } from 'bun:test'
import { uuidV5 } from '../../src/lib/uuid.ts'

/** Namespaces of RFC 9562, §6.6. */
const DNS = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'
const URLS = '6ba7b811-9dad-11d1-80b4-00c04fd430c8'

test.each([
  // RFC 9562, appendix A.4.
  [DNS, 'www.example.com', '2ed6657d-e927-568b-95e1-2665a8aea6a2'],
  // control-resources-file §2.
  [URLS, 'https://github.com/api7/aisix#resources-file', '63e50ab2-677a-54d3-8d1e-c0cb29ceae94'],
  ['63e50ab2-677a-54d3-8d1e-c0cb29ceae94', 'api_keys/anon-principal', '9aeb246c-ed38-5bef-a854-c8565ca95fb4'],
])('the UUID of a name: %s %s', (namespace, name, uuid) => {
  expect(uuidV5(namespace, name)).toBe(uuid)
})

test('names beyond ASCII are taken as UTF-8', () => {
  expect(uuidV5(DNS, 'größe')).toBe(uuidV5(DNS, Buffer.from('größe').toString('utf8')))
  expect(uuidV5(DNS, 'größe')).not.toBe(uuidV5(DNS, 'grosse'))
})
