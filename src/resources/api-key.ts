import { z } from 'zod'
import { defaulted, optional, text } from './fields.ts'
import { RateLimit } from './rate-limit.ts'

export const ApiKey = z
  .strictObject({
    key_hash: z
      .string()
      .regex(
        /^[0-9a-fA-F]{64}$/,
        'must be 64 hexadecimal digits, the SHA-256 of the key (`aisix hash-key` prints it); never send the key itself',
      )
      .transform(hash => hash.toLowerCase())
      .describe('Lowercase hexadecimal SHA-256 of the plaintext key, which is never stored. Unique.'),
    allowed_models: z
      .array(z.string())
      .describe('Aliases that the key may use; a `*` in an entry stands for any text. `[]`: none. `["*"]`: all.'),
    allowed_routes: optional(z.array(z.string())).describe(
      'Names of passthrough routes that the key may use; a `*` in an entry stands for any text. Left out or `[]`: none.',
    ),
    display_name: optional(text()).describe('Label of the key.'),
    expires_at: optional(z.iso.datetime({ offset: true }))
      .transform(time => (time === undefined ? undefined : new Date(time).toISOString()))
      .describe('RFC 3339 time after which the key is refused.'),
    disabled: defaulted(z.boolean(), false)
      .transform(disabled => (disabled ? true : undefined))
      .describe('`true` refuses the key until it is enabled again.'),
    rate_limit: optional(RateLimit).describe('Limits of this key, over all models.'),
    team_id: optional(text()).describe('Team of the caller, for rate-limit policies, records and header templates.'),
    user_id: optional(text()).describe('User behind the key, for rate-limit policies, records and header templates.'),
    user_name: optional(text()).describe('Name of the user, for records.'),
  })
  .meta({
    id: 'ApiKey',
    examples: [
      {
        key_hash: 'f39485b1ed9b0ba68f2804cb94e29e632f256bd6f37aa4d071cf3f9967a65b1d',
        allowed_models: ['llama-3-private'],
      },
    ],
  })

export type ApiKey = z.output<typeof ApiKey>
