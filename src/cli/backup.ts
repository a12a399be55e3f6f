import { type Command, UsageError } from './command.ts'
import { STORE, storeOf } from './store-option.ts'

export const backup: Command = {
  words: ['backup'],
  summary: 'copy store and spending into one file',
  about: `Copies the store and what was spent on budgets, each as it is at one moment, into one file; also while a gateway runs on them.
FILE must not exist. It holds the credentials of your model servers: keep it as safe as the store.`,
  args: [{ name: 'FILE', complete: 'file', about: 'The file to make.' }],
  options: [...STORE, { name: 'include', value: 'usage', complete: ['usage'], about: '`usage`: the records of usage, too.' }],
  examples: ['aisix backup aisix-monday.tar --config config.yaml'],
  async run(given, io) {
    const include = given.text('include')
    if (include !== undefined && include !== 'usage') throw new UsageError('--include knows nothing but usage')
    const { runBackup } = await import('./backup-run.ts')
    return runBackup(given.arg('FILE'), storeOf(given, io), { usage: include === 'usage' }, io.env)
  },
}

export const restore: Command = {
  words: ['restore'],
  summary: 'put a backup back',
  about: `Puts a backup back, or a copy of a store such as aisix.db.before-restore. The resources are written into the live store in one
step; a gateway that runs on it serves them within half a second. What was there before is kept in aisix.db.before-restore. The
audit log goes on, and spending on budgets is never lowered.
Ends with 1, and nothing done, when FILE is no backup, is cut short or damaged, or was made by a newer version.`,
  args: [{ name: 'FILE', complete: 'file', about: 'The backup.' }],
  options: STORE,
  examples: ['aisix restore aisix-monday.tar --config config.yaml'],
  async run(given, io) {
    const { runRestore } = await import('./backup-run.ts')
    return runRestore(given.arg('FILE'), storeOf(given, io), io.env)
  },
}
