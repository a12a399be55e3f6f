/** argv → configuration → Gateway → listeners → signals; the only file that exits the process. */
import { type Output, parseCommand, runCheckConfig, runHashKey } from './cli.ts'
import { restartWith, wantedEnvironment } from './environment.ts'
import { say, serve } from './listen.ts'

process.umask(0o077)
const wanted = wantedEnvironment(process.env)
const isRestarted = wanted === undefined || restartWith(wanted, process.argv)

const command = parseCommand(process.argv.slice(2), process.env)
switch (command.kind) {
  case 'print':
    await finish(command.output)
    break
  case 'hash-key':
    await finish(runHashKey(await Bun.stdin.text()))
    break
  case 'check-config':
    await finish(runCheckConfig(command.configPath, process.env))
    break
  case 'serve':
    process.exit(await serve(command.configPath, process.env, { isRestarted }))
}

async function finish({ stdout, stderr, exit }: Output): Promise<never> {
  await say(process.stdout, stdout)
  await say(process.stderr, stderr)
  process.exit(exit)
}
