/** What is used, by whom, how much and when: sums, single attempts, and what is under way. */
import type { Route } from './route.ts'
import { inFlightRoute } from './usage-in-flight.ts'
import { usageReportRoute } from './usage-report.ts'
import { type RequestsOptions, requestsRoutes } from './usage-requests.ts'

export type UsageOptions = RequestsOptions

export function usageRoutes(options: UsageOptions): Route[] {
  return [usageReportRoute(options), ...requestsRoutes(options), inFlightRoute(options)]
}
