/** A bucket of a store that speaks S3. source: control-observability §5.2 and §5.3 */
import type { S3Exporter } from '../resources/observability-exporter.ts'
import type { Outcome } from './destination.ts'
import type { StoredObject, Target } from './object-store.ts'
import type { Post, Reader } from './post.ts'
import { type Credential, encodePath, sha256, sign } from './sigv4.ts'

export type Environment = Readonly<Record<string, string | undefined>>

type Needs = { post: Post; env: Environment; now: () => number }

/** Where MinIO and its kin are, unless they are told otherwise. */
const REGION = 'us-east-1'

export function openS3(exporter: S3Exporter, { post, env, now }: Needs): Target {
  const { bucket, endpoint, region = REGION, credential_ref } = exporter
  const root =
    endpoint === undefined
      ? `https://${bucket}.s3.${region}.amazonaws.com`
      : `${endpoint.replace(/\/+$/, '')}/${encodePath(bucket)}`
  return {
    address: root,
    async put({ key, body, type }: StoredObject, signal: AbortSignal): Promise<Outcome> {
      // Read for each delivery, as the contract says: nothing keeps a credential.
      const credential = readCredential(credential_ref, env)
      if (typeof credential === 'string') return { isDelivered: false, problem: credential, mayRetry: false }
      const url = new URL(`${root}/${encodePath(key)}`)
      const headers = sign({
        method: 'PUT',
        url,
        headers: { 'content-type': type },
        bodyHash: sha256(body),
        region,
        credential,
        nowMs: now(),
      })
      return await post({ method: 'PUT', url: url.href, headers, body }, signal, READER)
    },
  }
}

/** out: the credential, or what is missing. source: control-observability §5.3 */
function readCredential(reference: string, env: Environment): Credential | string {
  const prefix = `OBJSTORE_CRED_${reference.toUpperCase().replace(/[^A-Z0-9]/g, '_')}_AWS_`
  const read = (name: string) => env[prefix + name]?.trim() || undefined
  const accessKeyId = read('ACCESS_KEY_ID')
  const secretAccessKey = read('SECRET_ACCESS_KEY')
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    return `no credential: set the variables ${prefix}ACCESS_KEY_ID and ${prefix}SECRET_ACCESS_KEY of the gateway`
  }
  const sessionToken = read('SESSION_TOKEN')
  const isPresentable = [accessKeyId, secretAccessKey, sessionToken ?? ''].every(each => /^[\x21-\x7e]*$/.test(each))
  if (!isPresentable) return `the credential in ${prefix}… holds characters that no header can carry`
  return { accessKeyId, secretAccessKey, sessionToken }
}

const READER: Reader = {
  rejected: () => 0,
  /** Errors of S3 are XML with a code of one word; anything beside it may repeat what was sent. */
  reason: (_status, text) => /<Code>([A-Za-z0-9]{1,64})<\/Code>/.exec(text)?.[1] ?? '',
}
