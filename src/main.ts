/** argv → configuration → Gateway → listeners → signals; the only file that exits the process. */
// biome-ignore assist/source/organizeImports: the first start of the process ends in this module, before the others load.
import { handleHangUps, isRestarted } from './first.ts'
import {
  type Output,
  parseCommand,
  runCatalogImport,
  runCheckConfig,
  runExport,
  runHashKey,
  runSchema,
  runValidate,
} from './cli.ts'
import { runAuditVerify } from './cli/audit-verify-run.ts'
import { runBackup, runRestore } from './cli/backup-run.ts'
import { say, serve } from './listen.ts'

const command = parseCommand(process.argv.slice(2), process.env)
switch (command.kind) {
  case 'print':
    await finish(command.output)
    break
  case 'hash-key':
    await finish(runHashKey(await Bun.stdin.bytes()))
    break
  case 'check-config':
    await finish(runCheckConfig(command.configPath, process.env))
    break
  case 'catalog-import':
    await finish(runCatalogImport(command.file, command.configPath, process.env))
    break
  case 'validate':
    await finish(runValidate(command.file, process.env))
    break
  case 'export':
    await finish(runExport(command, process.env))
    break
  case 'schema':
    await finish(runSchema(command.of))
    break
  case 'audit-verify':
    await finish(runAuditVerify(command.store, command.known, process.env))
    break
  case 'backup':
    await finish(runBackup(command.file, command.store, command, process.env))
    break
  case 'restore':
    await finish(runRestore(command.file, command.store, process.env))
    break
  case 'serve':
    process.exit(
      await serve(command.configPath, process.env, { isRestarted, handleHangUps }).catch(async error => {
        // A mistake of ours before anything is served: whoever started the process must not take it for running.
        await say(process.stderr, `start failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
        return 1
      }),
    )
}

async function finish({ stdout, stderr, exit }: Output): Promise<never> {
  await say(process.stdout, stdout)
  await say(process.stderr, stderr)
  process.exit(exit)
}
