/** The items by ascending key, those of one key in the order in which they are given; `keyOf` is asked once an item. */
export function ascending<T>(items: readonly T[], keyOf: (item: T) => number): T[] {
  const [first, second] = items
  if (first === undefined || second === undefined) return items.slice()
  // Two are the common case, and every request pays for it.
  if (items.length === 2) return keyOf(second) < keyOf(first) ? [second, first] : [first, second]
  const keyed = items.map(item => ({ item, key: keyOf(item) }))
  // Compared, not subtracted: the difference of two infinite keys is no number.
  keyed.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
  return keyed.map(({ item }) => item)
}
