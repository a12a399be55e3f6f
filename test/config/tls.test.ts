import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { ConfigError, loadConfig } from '../../src/config.ts'
import { MINIMAL } from './load.ts'

const FIXTURES = resolve(import.meta.dir, '../fixtures/tls')
const read = (name: string) => readFileSync(join(FIXTURES, name), 'utf8')
const cert = read('server.crt')
const key = read('server.key')

/** Loads a configuration in a folder of files that exist in this table alone. */
function loadWith(config: string, files: Record<string, string>) {
  return loadConfig({
    path: '/conf/config.yaml',
    env: {},
    readFile: path => {
      const text = path === '/conf/config.yaml' ? config : files[path]
      if (text === undefined) throw Object.assign(new Error('not there'), { code: 'ENOENT' })
      return new TextEncoder().encode(text)
    },
  })
}

function problemsWith(config: string, files: Record<string, string>): readonly string[] {
  try {
    loadWith(config, files)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  throw new Error('expected the configuration to be refused, and it was loaded')
}

const PROXY = `${MINIMAL}  tls: {cert_file: a.crt, key_file: certs/a.key}\n`
const LABEL = '/conf/config.yaml:4:3: proxy.tls: failed to load cert_file=/conf/a.crt / key_file=/conf/certs/a.key: '
const files = (a: string, b: string) => ({ '/conf/a.crt': a, '/conf/certs/a.key': b })

describe('certificates of listeners', () => {
  test('are read from the folder of the configuration, and handed over', () => {
    const { config, tls } = loadWith(PROXY, files(cert, key))
    expect(config.proxy.tls).toEqual({ cert_file: '/conf/a.crt', key_file: '/conf/certs/a.key' })
    expect(tls.proxy).toEqual({ cert, key })
    expect(tls.admin).toBeUndefined()
  })

  test('a chain counts from its first certificate', () => {
    expect(loadWith(PROXY, files(cert + read('expired.crt'), key)).tls.proxy?.key).toBe(key)
  })

  test.each([
    ['a key that is not there', { '/conf/a.crt': cert }, 'key_file: no such file'],
    ['a certificate that is not there', {}, 'cert_file: no such file'],
    ['no certificate', files('nothing', key), 'cert_file holds no PEM certificate'],
    ['a damaged certificate', files(cert.replace(/\n.{20}/, '\nAAAA'), key), 'certificate 1 in cert_file is damaged'],
    [
      'a damaged second certificate',
      files(`${cert}${cert.replace(/\n.{20}/, '\nAAAA')}`, key),
      'certificate 2 in cert_file is damaged',
    ],
    ['no key', files(cert, cert), 'key_file holds no PEM private key'],
    ['a damaged key', files(cert, key.replace(/\n.{20}/, '\nAAAA')), 'the private key in key_file is damaged'],
    ['a key under a passphrase', files(cert, read('encrypted.key')), 'the private key in key_file is encrypted'],
    ['the key of another certificate', files(cert, read('other.key')), 'the key is not that of the first certificate'],
  ])('%s stops the start, with section, files and reason', (_case, table, reason) => {
    expect(problemsWith(PROXY, table)).toEqual([expect.stringContaining(LABEL + reason)])
  })

  test('the admin listener is told as such, and not looked at while it is off', () => {
    const admin = (enabled: boolean) =>
      `proxy: {addr: "127.0.0.1:0"}\nadmin:\n  enabled: ${enabled}\n  admin_keys: [k]\n  tls: {cert_file: /x, key_file: /y}\n`
    expect(problemsWith(admin(true), {})).toEqual([
      '/conf/config.yaml:5:3: admin.tls: failed to load cert_file=/x / key_file=/y: cert_file: no such file',
    ])
    expect(loadWith(admin(false), {}).tls.admin).toBeUndefined()
  })

  test('one that has expired is a warning', () => {
    expect(loadWith(PROXY, files(read('expired.crt'), key)).warnings).toEqual([
      '/conf/config.yaml:4:3: proxy.tls: the certificate in /conf/a.crt has expired',
    ])
  })
})

describe('upstream.tls', () => {
  const config = `${MINIMAL}upstream:\n  tls: {ca_file: ca.crt, client_cert_file: a.crt, client_key_file: certs/a.key}\n`

  test('a bundle and a client certificate are read and handed over', () => {
    const bundle = cert + read('expired.crt')
    expect(loadWith(config, { ...files(cert, key), '/conf/ca.crt': bundle }).tls.upstream).toEqual({ ca: bundle, cert, key })
    expect(loadWith(MINIMAL, {}).tls.upstream).toEqual({ ca: undefined, cert: undefined, key: undefined })
  })

  test('each file that cannot be used is told', () => {
    const at = '/conf/config.yaml:5:3: upstream.tls: failed to load '
    expect(problemsWith(config, { '/conf/ca.crt': key })).toEqual([
      `${at}ca_file=/conf/ca.crt: ca_file holds no PEM certificate (-----BEGIN CERTIFICATE-----)`,
      `${at}client_cert_file=/conf/a.crt / client_key_file=/conf/certs/a.key: client_cert_file: no such file`,
    ])
  })
})

test('files are told together with what else is wrong', () => {
  expect(problemsWith(`${PROXY}bedrock_endpoint_url: http://x\n`, {})).toEqual([
    `${LABEL}cert_file: no such file`,
    '/conf/config.yaml:5:1: bedrock_endpoint_url: is not supported by this version; remove the key',
  ])
})
