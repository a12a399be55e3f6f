import type { Dimension, GroupBy } from '../resources/rate-limit-policy.ts'

/** What policies look at: who asks, and for which model. What is undefined is absent: no comparison with it holds. */
export type Subject = {
  apiKeyId: string
  teamId: string | undefined
  userId: string | undefined
  modelId: string
  /** The alias that was asked for; of a target of a group its own. */
  modelName: string
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
  if (dimension === 'model_name') return group === undefined ? [subject.modelName] : [subject.modelName, group.name]
  if (dimension === 'model' && group !== undefined) return [subject.modelId, group.id]
  const value = propertyOf(subject, dimension)
  return value === undefined ? [] : [value]
}
