/** Why a file could not be read, in words for an operator. */
export function readProblem(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ENOENT') return 'no such file'
  if (code === 'EISDIR') return 'is a directory, expected a file'
  if (code === 'ENOTDIR') return 'a part of its path is not a folder'
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied: let the user that runs the gateway read it'
  return `cannot be read${typeof code === 'string' ? ` (${code})` : ''}`
}
