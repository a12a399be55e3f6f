/**
 * The beginning of a text that takes at most `bytesMax` bytes as UTF-8, cut between characters. A half of a pair of
 * surrogates, which stands where somebody cut by units, is left out at the end and replaced elsewhere.
 */
export function cutText(text: string, bytesMax: number): string {
  // A unit of UTF-16 takes three bytes at most.
  if (text.length * 3 <= bytesMax && text.isWellFormed()) return text
  const last = text.charCodeAt(text.length - 1)
  const whole = (last >= 0xd800 && last <= 0xdbff ? text.slice(0, -1) : text).toWellFormed()
  if (Buffer.byteLength(whole) <= bytesMax) return whole
  const bytes = Buffer.from(whole.slice(0, bytesMax))
  let end = Math.min(bytes.length, bytesMax)
  // Bytes of the form 10xxxxxx go on with a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1
  return bytes.toString('utf8', 0, end)
}
