/** The dashboard and the alerts use only what the scrape page can have, and Prometheus understands them. */
import { describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { allFamilies } from '../src/status/families.ts'
import { answerOf, seriesOf } from './promql.ts'

const ROOT = resolve(import.meta.dir, '..')
const RULES_FILE = join(ROOT, 'docs/prometheus/alerts.yaml')
const RULES_TEST_FILE = join(ROOT, 'test/prometheus/alerts.test.yaml')
const PROMTOOL = Bun.which('promtool')

const families = allFamilies({})
const series = seriesOf(families)

const Rule = z.strictObject({
  alert: z.string().regex(/^Aisix[A-Za-z]+$/),
  expr: z.string(),
  for: z.string().optional(),
  labels: z.strictObject({ severity: z.enum(['critical', 'warning', 'info']) }),
  annotations: z.strictObject({ summary: z.string().min(15), description: z.string().min(40) }),
})
const Rules = z.strictObject({ groups: z.array(z.strictObject({ name: z.string(), rules: z.array(Rule) })) })

const Target = z.looseObject({ refId: z.string(), expr: z.string().min(1), legendFormat: z.string() })
const GridPos = z.strictObject({ x: z.int(), y: z.int(), w: z.int(), h: z.int() })
const Panel = z.looseObject({
  id: z.int(),
  title: z.string().min(1),
  type: z.string(),
  gridPos: GridPos,
  targets: z.array(Target).min(1),
  fieldConfig: z.looseObject({ defaults: z.looseObject({ unit: z.string().min(1) }) }),
})
const Row = z.looseObject({
  id: z.int(),
  title: z.string().min(1),
  type: z.literal('row'),
  collapsed: z.boolean(),
  gridPos: GridPos,
  panels: z.array(Panel),
})
const Variable = z.looseObject({
  name: z.string(),
  type: z.string(),
  query: z.union([z.string(), z.looseObject({ query: z.string() })]),
})
const Dashboard = z.looseObject({
  panels: z.array(z.union([Row, Panel])),
  templating: z.looseObject({ list: z.array(Variable) }),
})

const rules = Rules.parse(Bun.YAML.parse(readFileSync(RULES_FILE, 'utf8'))).groups.flatMap(group => group.rules)
const dashboardText = readFileSync(join(ROOT, 'docs/grafana/aisix.json'), 'utf8')
const dashboard = Dashboard.parse(JSON.parse(dashboardText))
const panels = dashboard.panels.flatMap(each => (isRow(each) ? each.panels : [each]))
const variables = dashboard.templating.list

function isRow(panel: z.output<typeof Row> | z.output<typeof Panel>): panel is z.output<typeof Row> {
  return panel.type === 'row'
}

/** What Grafana puts in the place of its variables, in the form of a question that Prometheus can be asked. */
function filledIn(expr: string): string {
  return expr.replaceAll('$__rate_interval', '5m').replaceAll('$__range', '6h').replace(/\$\w+/g, '.*')
}

/** The variables of `{{label}}` in a legend, of `{{ $labels.label }}` in an annotation. */
const legendLabels = (text: string) => [...text.matchAll(/\{\{\s*(\w+)\s*\}\}/g)].map(([, label = '']) => label)
const annotationLabels = (text: string) => [...text.matchAll(/\$labels\.(\w+)/g)].map(([, label = '']) => label)

describe('the reader of PromQL finds', () => {
  const wrong: readonly [what: string, expression: string][] = [
    ['a metric that there is not', 'rate(aisix_nothing_total[5m])'],
    ['a label that the metric does not have', 'rate(aisix_llm_requests_total{colour="red"}[5m])'],
    ['a label to sum by that is not left', 'sum by (user_id) (sum by (model) (aisix_deployment_state))'],
    ['a histogram without its buckets', 'histogram_quantile(0.5, sum by (model) (rate(aisix_request_ttft_seconds_bucket[5m])))'],
    ['a summary that is asked for buckets', 'rate(aisix_llm_request_duration_seconds_bucket[5m])'],
    ['a rate without a range', 'rate(aisix_llm_requests_total)'],
    ['a range without a rate', 'sum(aisix_llm_requests_total[5m])'],
    ['sides of an operator that can never match', 'aisix_deployment_state / aisix_llm_requests_total'],
    ['a function that it does not know', 'deriv(aisix_deployment_state[5m])'],
    ['a bracket that is missing', 'sum(aisix_deployment_state'],
    ['words behind the end', 'aisix_deployment_state bogus'],
  ]
  test.each(wrong)('%s', (_what, expression) => {
    expect(() => answerOf(expression, series)).toThrow()
  })

  test('the labels of an answer', () => {
    const labels = (expression: string) => [...(answerOf(expression, series) ?? ['a number'])].sort()
    expect(labels('sum by (model, job) (rate(aisix_llm_requests_total{status="500"}[5m])) / 2 > 1')).toEqual(['job', 'model'])
    expect(labels('histogram_quantile(0.9, sum by (le) (rate(aisix_request_ttft_seconds_bucket[5m])))')).toEqual([])
    expect(labels('aisix_budgets_up == 0 or aisix_budgets_up unless aisix_budgets_up offset 5m')).toEqual(['instance', 'job'])
    expect(labels('time() - 1e6')).toEqual(['a number'])
  })
})

test('every family is declared once, with help, and counters alone end in _total', () => {
  const names = families.map(({ name }) => name)
  expect(new Set(names).size).toBe(names.length)
  for (const { name, type, help, labels } of families) {
    expect(name).toMatch(/^aisix_[a-z0-9_]+$/)
    expect(name.endsWith('_total'), name).toBe(type === 'counter')
    expect(help, name).toMatch(/^[A-Z0-9].*[.)]$/)
    expect(new Set(labels).size, name).toBe(labels.length)
    for (const label of ['le', 'quantile', 'job', 'instance']) expect(labels, name).not.toContain(label)
  }
})

describe('docs/prometheus/alerts.yaml', () => {
  test('has every alert once', () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length)
  })

  test.each(rules.map(rule => [rule.alert, rule] as const))(
    '%s asks for metrics that there are and tells labels that it has',
    (_name, rule) => {
      const labels = answerOf(rule.expr, series)
      expect(labels).toBeDefined()
      const { summary, description } = rule.annotations
      for (const label of annotationLabels(description)) expect([...(labels ?? [])]).toContain(label)
      // It stands in the reference as it is.
      expect(summary).not.toContain('{{')
      expect(description).not.toMatch(/\{\{(?!\s*\$(labels\.\w+|value( \| (humanize\w*|printf "%\.2f"))?)\s*\}\})/)
    },
  )

  test('sends its readers to documents and pages that there are', () => {
    const text = readFileSync(RULES_FILE, 'utf8')
    for (const [file] of text.matchAll(/docs\/[\w./-]+\.(md|yaml)/g)) expect(() => readFileSync(join(ROOT, file))).not.toThrow()
    const told = rules.map(({ annotations }) => annotations.description).join('\n')
    for (const [, name = ''] of told.matchAll(/`(aisix_\w+)`/g))
      expect(
        [...series.keys()].some(each => each.startsWith(name)),
        name,
      ).toBe(true)
  })

  test.skipIf(!PROMTOOL)('promtool accepts it', () => {
    const { exitCode, stdout, stderr } = promtool('check', 'rules', RULES_FILE)
    expect(`${stdout}${stderr}`).toContain(`SUCCESS: ${rules.length} rules found`)
    expect(exitCode).toBe(0)
  })

  test.skipIf(!PROMTOOL)('every alert fires when it should and is silent when it should be', () => {
    const { exitCode, stdout, stderr } = promtool('test', 'rules', RULES_TEST_FILE)
    expect(`${stdout}${stderr}`).toContain('SUCCESS')
    expect(exitCode).toBe(0)
    const text = readFileSync(RULES_TEST_FILE, 'utf8')
    for (const { alert } of rules) expect(text).toContain(`{alertname="${alert}"}`)
  })
})

describe('docs/grafana/aisix.json', () => {
  test('has panels that each have an id of their own and a place of their own', () => {
    const all = [...dashboard.panels, ...dashboard.panels.flatMap(each => (isRow(each) ? each.panels : []))]
    expect(panels.length).toBeGreaterThan(40)
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length)
    const taken = new Map<string, string>()
    for (const { title, gridPos } of all) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x += 1) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y += 1) {
          expect(taken.get(`${x},${y}`), title).toBeUndefined()
          taken.set(`${x},${y}`, title)
        }
      }
    }
  })

  test('has no two panels of one title', () => {
    const titles = panels.map(({ title }) => title)
    expect(titles.filter((title, at) => titles.indexOf(title) !== at)).toEqual([])
  })

  test.each(panels.map(panel => [panel.title, panel] as const))(
    '"%s" asks for metrics that there are and names labels that it has',
    (_title, { targets }) => {
      for (const { expr, legendFormat } of targets) {
        const labels = answerOf(filledIn(expr), series) ?? new Set()
        for (const label of legendLabels(legendFormat)) expect([...labels]).toContain(label)
      }
    },
  )

  test('names no variable that it does not have, and uses every one that it has', () => {
    const own = variables.map(({ name }) => name)
    const used = new Set(
      [...dashboardText.matchAll(/\$\{?(\w+)\}?/g)].map(([, name = '']) => name).filter(name => !name.startsWith('__')),
    )
    expect([...used].sort()).toEqual(own.sort())
  })

  test('fills its variables from labels that there are', () => {
    for (const { name, type, query } of variables) {
      if (type === 'datasource') continue
      const text = typeof query === 'string' ? query : query.query
      const [, selector = '', label = ''] = /^label_values\((.+), (\w+)\)$/.exec(text) ?? []
      expect([...(answerOf(filledIn(selector), series) ?? [])], name).toContain(label)
    }
  })

  test('shows every family that is not kept for dashboards of old', () => {
    const shown = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)).join('\n')
    const unseen = families.map(({ name }) => name).filter(name => !shown.includes(name))
    expect(unseen).toEqual([
      ...['aisix_requests_total', 'aisix_request_duration_seconds', 'aisix_tokens_consumed_total'],
      // What is shown says the same in other words.
      'aisix_proxy_failed_requests_total',
      'aisix_proxy_request_duration_seconds',
      'aisix_deployment_success_responses_total',
      'aisix_budget_details_present',
    ])
  })

  test.skipIf(!PROMTOOL)('promtool understands every question', () => {
    const folder = mkdtempSync(join(tmpdir(), 'aisix-dashboard-'))
    try {
      const file = join(folder, 'rules.json')
      const questions = panels
        .flatMap(({ targets }) => targets)
        .map(({ expr }, at) => ({ record: `question:${at}`, expr: filledIn(expr) }))
      // JSON is YAML too.
      writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules: questions }] }))
      const { exitCode, stdout, stderr } = promtool('check', 'rules', file)
      expect(`${stdout}${stderr}`).toContain(`SUCCESS: ${questions.length} rules found`)
      expect(exitCode).toBe(0)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

function promtool(...args: string[]) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([PROMTOOL ?? '', ...args])
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() }
}
