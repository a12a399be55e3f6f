/** Certificates and keys that the configuration names: read and checked once, at the start. */
import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto'
import { parseCertificates } from '../lib/pem.ts'
import { readProblem } from '../lib/read-problem.ts'
import type { ReadFile } from './file.ts'
import type { Config } from './schema.ts'

/** PEM text, as `Bun.serve` takes it. */
export type ServerTls = { cert: string; key: string }

/** PEM text of what the files hold. A listener without TLS has none. */
export type TlsMaterial = {
  proxy: ServerTls | undefined
  admin: ServerTls | undefined
  /** `ca` is to be trusted besides the roots of the system; `cert` and `key` are there together or not at all. */
  upstream: { ca: string | undefined; cert: string | undefined; key: string | undefined }
}

type Found = { material: TlsMaterial; problems: { path: string; text: string }[]; warnings: { path: string; text: string }[] }

/** Reads all files that the configuration names; a problem names the section, the files and the reason. */
export function loadTls(config: Config, readFile: ReadFile, nowMs: number): Found {
  const problems: Found['problems'] = []
  const warnings: Found['warnings'] = []

  const attempt = <T>(path: string, label: string, load: () => T): T | undefined => {
    try {
      return load()
    } catch (error) {
      if (!(error instanceof TlsFault)) throw error
      problems.push({ path, text: `failed to load ${label}: ${error.message}` })
      return undefined
    }
  }
  const pair = (path: string, certFile: string, keyFile: string, names = ['cert_file', 'key_file']) =>
    attempt(path, `${names[0]}=${certFile} / ${names[1]}=${keyFile}`, () => {
      const cert = readPem(certFile, names[0] ?? '', readFile)
      const key = readPem(keyFile, names[1] ?? '', readFile)
      const [first] = readCertificates(cert, names[0] ?? '')
      if (!first?.checkPrivateKey(readKey(key, names[1] ?? ''))) {
        throw new TlsFault(
          `the key is not that of the first certificate; the certificate of the server comes first in ${names[0]}`,
        )
      }
      const expiry = Date.parse(first.validTo)
      if (expiry < nowMs) warnings.push({ path, text: `the certificate in ${certFile} has expired` })
      return { cert, key }
    })

  const { proxy, admin, upstream } = config
  const material: TlsMaterial = {
    proxy: proxy.tls && pair('proxy.tls', proxy.tls.cert_file, proxy.tls.key_file),
    admin: admin.enabled && admin.tls ? pair('admin.tls', admin.tls.cert_file, admin.tls.key_file) : undefined,
    upstream: { ca: undefined, cert: undefined, key: undefined },
  }
  const { ca_file: caFile, client_cert_file: certFile, client_key_file: keyFile } = upstream.tls
  if (caFile !== undefined) {
    material.upstream.ca = attempt('upstream.tls', `ca_file=${caFile}`, () => {
      const ca = readPem(caFile, 'ca_file', readFile)
      readCertificates(ca, 'ca_file')
      return ca
    })
  }
  if (certFile !== undefined && keyFile !== undefined) {
    const client = pair('upstream.tls', certFile, keyFile, ['client_cert_file', 'client_key_file'])
    material.upstream.cert = client?.cert
    material.upstream.key = client?.key
  }
  return { material, problems, warnings }
}

class TlsFault extends Error {}

function readPem(file: string, name: string, readFile: ReadFile): string {
  try {
    return new TextDecoder().decode(readFile(file))
  } catch (error) {
    throw new TlsFault(`${name}: ${readProblem(error)}`)
  }
}

function readCertificates(pem: string, name: string): X509Certificate[] {
  const read = parseCertificates(pem)
  if ('certificates' in read) return read.certificates
  throw new TlsFault(
    read.problem === 'damaged'
      ? `certificate ${read.number} in ${name} is damaged`
      : `${name} holds no PEM certificate (-----BEGIN CERTIFICATE-----)`,
  )
}

function readKey(pem: string, name: string): KeyObject {
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(pem)) {
    throw new TlsFault(`${name} holds no PEM private key (-----BEGIN PRIVATE KEY-----)`)
  }
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED/.test(pem)) {
    throw new TlsFault(`the private key in ${name} is encrypted; store it without a passphrase, readable by the gateway alone`)
  }
  try {
    return createPrivateKey(pem)
  } catch {
    throw new TlsFault(`the private key in ${name} is damaged`)
  }
}
