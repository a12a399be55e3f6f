/** What an operator does over the admin API, for tests that start the executable. */
import { ADMIN_KEY, type Executable } from './executable.ts'

export function operatorOf(gateway: Pick<Executable, 'adminUrl'>) {
  const ask = (method: string, path: string, document?: unknown) =>
    fetch(`${gateway.adminUrl}/admin/v1/${path}`, {
      method,
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      ...(document === undefined ? {} : { body: JSON.stringify(document) }),
    })
  return {
    ask,
    /** Creates a resource. returns: its id */
    async write(path: string, document: unknown): Promise<string> {
      const response = await ask('POST', path, document)
      const body: unknown = await response.json()
      if (typeof body === 'object' && body !== null && 'id' in body && typeof body.id === 'string') return body.id
      throw new Error(`POST ${path} was answered ${response.status}: ${JSON.stringify(body)}`)
    },
  }
}
