/** argv → configuration → Gateway → listeners → signals; the only file that exits the process. */
// biome-ignore assist/source/organizeImports: the first start of the process ends in this module, before the others load.
import { handleHangUps, isRestarted } from './first.ts'
import { readCommandLine } from './cli.ts'
import { say } from './lib/say.ts'

const argv = process.argv.slice(2)
const line = readCommandLine(argv, process.env)
if (line.kind === 'command') {
  const { run } = await import('./cli/run.ts')
  const { processIo } = await import('./cli/process-io.ts')
  const { stdout, stderr, exit } = await run(argv, processIo()).catch(error => ({
    stdout: '',
    stderr: `aisix: a mistake of this program: ${traceOf(error)}\n`,
    exit: 1,
  }))
  await say(process.stdout, stdout)
  await say(process.stderr, stderr)
  process.exit(exit)
}
const { serve } = await import('./listen.ts')
process.exit(
  await serve(line.configPath, process.env, { isRestarted, handleHangUps }).catch(async error => {
    // A mistake of ours before anything is served: whoever started the process must not take it for running.
    await say(process.stderr, `start failed: ${traceOf(error)}\n`)
    return 1
  }),
)

function traceOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
