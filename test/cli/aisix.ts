/** The compiled executable as a command: what it is given, what it says, how it ends. */
import { ADMIN_KEY, EXECUTABLE } from '../executable.ts'

export type Ran = { stdout: string; stderr: string; exit: number }

export async function aisix(
  argv: string[],
  options: { env?: Record<string, string>; stdin?: string; cwd?: string } = {},
): Promise<Ran> {
  const child = Bun.spawn([EXECUTABLE, ...argv], {
    env: { PATH: process.env.PATH ?? '', AISIX_ADMIN_KEY: ADMIN_KEY, ...options.env },
    stdin: new TextEncoder().encode(options.stdin ?? ''),
    stdout: 'pipe',
    stderr: 'pipe',
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  })
  const [stdout, stderr, exit] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return { stdout, stderr, exit }
}
