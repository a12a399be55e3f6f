import { describe, expect, test } from 'bun:test'
import { encodePath, sha256, sign } from '../../src/exporters/sigv4.ts'

// Examples of AWS, "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk".
const credential = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
  sessionToken: undefined,
}
const nowMs = Date.parse('2013-05-24T00:00:00Z')
const host = 'https://examplebucket.s3.amazonaws.com'
const signatureOf = (headers: Record<string, string>) => /Signature=([0-9a-f]{64})$/.exec(headers.authorization ?? '')?.[1]

describe('signatures', () => {
  test("are that of AWS's example of an upload", () => {
    const headers = sign({
      method: 'PUT',
      url: new URL(`${host}/${encodePath('test$file.text')}`),
      headers: { date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
      bodyHash: sha256('Welcome to Amazon S3.'),
      region: 'us-east-1',
      credential,
      nowMs,
    })
    expect(headers).toMatchObject({
      'x-amz-date': '20130524T000000Z',
      'x-amz-content-sha256': '44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072',
      authorization:
        'AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
    })
  })

  test("are that of AWS's example of a download", () => {
    const headers = sign({
      method: 'GET',
      url: new URL(`${host}/test.txt`),
      headers: { range: 'bytes=0-9' },
      bodyHash: sha256(''),
      region: 'us-east-1',
      credential,
      nowMs,
    })
    expect(signatureOf(headers)).toBe('f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41')
  })

  test('cover the token of a session', () => {
    const request = {
      method: 'PUT',
      url: new URL(`${host}/a`),
      headers: {},
      bodyHash: sha256(''),
      region: 'us-east-1',
      nowMs,
    }
    const plain = sign({ ...request, credential })
    const withToken = sign({ ...request, credential: { ...credential, sessionToken: 'token' } })
    expect(plain).not.toHaveProperty('x-amz-security-token')
    expect(withToken).toMatchObject({ 'x-amz-security-token': 'token' })
    expect(withToken.authorization).toContain('SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,')
    expect(signatureOf(withToken)).not.toBe(signatureOf(plain))
  })
})

test('paths keep their slashes and unreserved characters, everything else is percent-encoded once', () => {
  expect(encodePath("usage/dt=2030-01-31/a b+c!'()*~_.%2e/ü")).toBe(
    'usage/dt%3D2030-01-31/a%20b%2Bc%21%27%28%29%2A~_.%252e/%C3%BC',
  )
})
