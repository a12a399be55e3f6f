/** Statuses that the admin API answers an error with. source: control-admin-api §3 */
export type AdminErrorStatus = 400 | 401 | 403 | 404 | 408 | 409 | 413 | 415 | 500 | 501 | 503

/**
 * An answer in the admin API's envelope, `{"error_msg"}`. The message says what was expected and what to do; it never holds
 * a value that was submitted, because any of them could be a credential in the wrong place.
 */
export class AdminError extends Error {
  constructor(
    readonly status: AdminErrorStatus,
    message: string,
  ) {
    super(message)
  }
}

/** A JSON answer that no cache keeps. Members that are undefined are left out. */
export function json(status: number, document: unknown, headers: Record<string, string> = {}): Response {
  return Response.json(document, { status, headers: { 'cache-control': 'no-store', ...headers } })
}
