import type { Candidate } from './strategy.ts'

/** The tag of targets for requests that have none, or none that fits. */
const DEFAULT_TAG = 'default'

/** Tags without surrounding blanks, blank ones dropped. */
export function cleanTags(tags: readonly string[]): string[] {
  return tags.map(tag => tag.trim()).filter(tag => tag !== '')
}

/**
 * The members that a request may use, by its tags. Case matters.
 * in: `header` is the value of `x-aisix-routing-tags`, comma-separated, several headers joined by commas, null without one
 * returns: `members` itself where all may be used, or the request's tags when no member has one of them or `default`
 * source: proxy-05 §2.1
 */
export function selectByTags<C extends Candidate>(
  members: readonly C[],
  header: string | null,
): readonly C[] | { unmatched: string[] } {
  if (members.every(({ tags }) => tags.length === 0)) return members
  const asked = header === null ? [] : cleanTags(header.split(','))
  if (asked.length > 0) {
    // A set, for a caller decides how many there are.
    const wanted = new Set(asked)
    const matching = members.filter(({ tags }) => tags.some(tag => wanted.has(tag)))
    if (matching.length > 0) return matching
  }
  const defaults = members.filter(({ tags }) => tags.includes(DEFAULT_TAG))
  if (defaults.length > 0) return defaults
  return asked.length === 0 ? members : { unmatched: asked }
}
