import type { Dimension, GroupBy } from '../resources/rate-limit-policy.ts'

/** What policies look at: who asks, and for which model. What is undefined is absent: no comparison with it holds. */
export type Subject = {
  apiKeyId: string
  teamId: string | undefined
  userId: string | undefined
  /** This and the alias: undefined for what names no model, on a passthrough route. */
  modelId: string | undefined
  /** The alias that was asked for; of a target of a group its own. */
  modelName: string | undefined
  /** Undefined for a group, whose targets may have different ones. */
  provider: string | undefined
  /** Set where the subject is a target that was reached through a group. */
  group?: { id: string; name: string }
}

/** What a bucket is told apart by: of a target of a group its own id. */
export function propertyOf(subject: Subject, dimension: GroupBy): string | undefined {
  switch (dimension) {
    case 'team':
      return subject.teamId
    case 'member':
      return subject.userId
    case 'api_key':
      return subject.apiKeyId
    case 'model':
      return subject.modelId
    case 'provider':
      return subject.provider
  }
}

/** What a comparison may hold for: the group that a target was reached through stands beside the target. None: absent. */
export function propertiesOf(subject: Subject, dimension: Dimension): string[] {
  const { group } = subject
  const value = dimension === 'model_name' ? subject.modelName : propertyOf(subject, dimension)
  const values = value === undefined ? [] : [value]
  if (group !== undefined && dimension === 'model_name') values.push(group.name)
  if (group !== undefined && dimension === 'model') values.push(group.id)
  return values
}
