import { type Command, UsageError } from './command.ts'
import { STORE, storeOf } from './store-option.ts'

export const auditVerify: Command = {
  words: ['audit', 'verify'],
  summary: 'say whether the audit log is as it was written',
  about: `Follows the chain of hashes through the audit log of a store, also while a gateway runs on it, and prints its last entry.
Keep that line elsewhere and give it as --known another day: a log that was written anew as a whole shows as well then.
Ends with 1 and names the first entry that is missing, or is not what was written.`,
  options: [...STORE, { name: 'known', value: 'SEQ:HASH', about: 'The last entry that an earlier verification printed.' }],
  examples: ['aisix audit verify --config config.yaml'],
  async run(given, io) {
    const { readKnownEntry, runAuditVerify } = await import('./audit-verify-run.ts')
    const text = given.text('known')
    const known = text === undefined ? undefined : readKnownEntry(text)
    if (text !== undefined && known === undefined) {
      throw new UsageError('--known needs the last entry that an earlier `aisix audit verify` printed: SEQ:HASH')
    }
    return runAuditVerify(storeOf(given, io), known, io.env)
  },
}
