export type CsvValue = string | number | null

/**
 * A table as RFC 4180 has it, with CRLF after every line. Text that a spreadsheet would take for a formula gets a leading `'`:
 * names are written by people, and opening a file must not run anything.
 * source: RFC 4180; OWASP, "CSV Injection"
 */
export function csv(columns: readonly string[], rows: readonly (readonly CsvValue[])[]): string {
  return [columns, ...rows].map(row => `${row.map(field).join(',')}\r\n`).join('')
}

function field(value: CsvValue): string {
  if (value === null) return ''
  if (typeof value === 'number') return String(value)
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
