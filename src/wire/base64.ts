const PADDED = /^[A-Za-z0-9+/]+={0,2}$/

/** Whether a text is base64 of something, whole and padded (RFC 4648, section 4); white space between is overlooked. */
export function isBase64(text: string): boolean {
  // Taken out first: a pattern that allows for it takes the square of a long text's time to refuse it.
  const data = /\s/.test(text) ? text.replace(/\s+/g, '') : text
  return data.length % 4 === 0 && PADDED.test(data)
}

/** `data:` with a media type, perhaps parameters, and base64. */
const DATA_URL = /^data:([^;,\s]+)(?:;[^;,]*)*?;base64,/i
/** The head alone is matched: pictures are megabytes. */
const HEAD_MAX = 256

/** out: undefined where it is no `data:` URL with a media type (told in lower case) and base64 */
export function readDataUrl(url: string): { mediaType: string; data: string } | undefined {
  const [head, mediaType] = DATA_URL.exec(url.slice(0, HEAD_MAX)) ?? []
  if (head === undefined || mediaType === undefined) return undefined
  const data = url.slice(head.length)
  return isBase64(data) ? { mediaType: mediaType.toLowerCase(), data } : undefined
}

export function isDataUrl(url: string): boolean {
  return /^data:/i.test(url)
}
