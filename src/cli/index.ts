/** The registry of commands: the parser, the help, the completion and docs/command-line.md come from it, in this order. */
import { apply } from './apply.ts'
import { auditVerify } from './audit-verify.ts'
import { backup, restore } from './backup.ts'
import { catalogImport } from './catalog-import.ts'
import { checkConfig } from './check-config.ts'
import type { Command } from './command.ts'
import { completion } from './completion.ts'
import { diff } from './diff.ts'
import { doctor } from './doctor.ts'
import { exportStore } from './export.ts'
import { hashKey } from './hash-key.ts'
import { importLitellm } from './import-litellm.ts'
import { keys } from './keys.ts'
import { models } from './models.ts'
import { providerKeys } from './provider-keys.ts'
import { schema } from './schema.ts'
import { status } from './status.ts'
import { usage } from './usage.ts'
import { validate } from './validate.ts'

export const COMMANDS: readonly Command[] = [
  status,
  usage,
  ...keys,
  ...models,
  ...providerKeys,
  doctor,
  checkConfig,
  validate,
  diff,
  apply,
  exportStore,
  schema,
  importLitellm,
  backup,
  restore,
  auditVerify,
  catalogImport,
  hashKey,
  completion,
]
