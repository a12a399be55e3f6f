/**
 * Signatures of requests to S3, in headers. Our own and not the runtime's client: that one obeys environment variables,
 * tries again by itself, and takes neither a deadline nor our TLS.
 * source: AWS, "Signature Version 4 signing process" and "Authenticating Requests: Using the Authorization Header"
 */
export type Credential = { accessKeyId: string; secretAccessKey: string; sessionToken: string | undefined }

export type Signing = {
  method: string
  url: URL
  /** Headers to be signed besides those that signing adds; names in lower case. */
  headers: Readonly<Record<string, string>>
  /** SHA-256 of the body, hexadecimal. */
  bodyHash: string
  region: string
  credential: Credential
  nowMs: number
}

/** All headers of the signed request but `host`, which the runtime sends. in: `url`, whose path is encoded by `encodePath` */
export function sign({ method, url, headers, bodyHash, region, credential, nowMs }: Signing): Record<string, string> {
  const time = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, '')
  const date = time.slice(0, 8)
  const sent: Record<string, string> = {
    ...headers,
    'x-amz-content-sha256': bodyHash,
    'x-amz-date': time,
    ...(credential.sessionToken === undefined ? {} : { 'x-amz-security-token': credential.sessionToken }),
  }
  const signed = Object.entries({ ...sent, host: url.host }).sort(([a], [b]) => (a < b ? -1 : 1))
  const names = signed.map(([name]) => name).join(';')
  const lines = signed.map(([name, value]) => `${name}:${value.trim().replace(/ +/g, ' ')}\n`).join('')
  const request = `${method}\n${url.pathname}\n\n${lines}\n${names}\n${bodyHash}`
  const scope = `${date}/${region}/s3/aws4_request`
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${sha256(request)}`
  const key = [date, region, 's3', 'aws4_request'].reduce<string | Uint8Array>(hmac, `AWS4${credential.secretAccessKey}`)
  const signature = Buffer.from(hmac(key, toSign)).toString('hex')
  sent.authorization = `AWS4-HMAC-SHA256 Credential=${credential.accessKeyId}/${scope},SignedHeaders=${names},Signature=${signature}`
  return sent
}

/** A path as S3 signs it: everything but unreserved characters and slashes percent-encoded, once. */
export function encodePath(path: string): string {
  return encodeURIComponent(path)
    .replace(/%2F/g, '/')
    .replace(/[!'()*]/g, character => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
}

export function sha256(content: string | Uint8Array<ArrayBuffer>): string {
  return new Bun.CryptoHasher('sha256').update(content).digest('hex')
}

function hmac(key: string | Uint8Array, text: string): Uint8Array {
  return new Bun.CryptoHasher('sha256', key).update(text).digest()
}
