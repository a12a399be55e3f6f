import { printJson } from './admin-client.ts'
import { type Command, UsageError } from './command.ts'
import { CONFIG, findConfig, NO_CONFIG } from './config-path.ts'

export const doctor: Command = {
  words: ['doctor'],
  summary: 'look for what is wrong, and say what to do',
  about: `Looks at the configuration, files and their modes, disk space, the clock, certificates, databases, ports and resources, and asks every
server that a provider key names: name, connection, TLS, whom it takes, what it is, what it serves. Works with the gateway running or not,
changes nothing, and connects to those servers alone, for 5 seconds each at the most. No token is used without --probe.
Ends with 0 when there is nothing to do, 1 after warnings, 2 after errors.`,
  options: [
    { name: 'probe', about: 'Send each server one chat request of one token, which may cost money.' },
    {
      name: 'json',
      about:
        'Print JSON: `severity`, the worst of all, and `findings`, each with `check`, `subject`, `severity`, `message` and `advice`.',
    },
    CONFIG,
  ],
  examples: ['aisix doctor --config config.yaml', 'aisix doctor --json | jq \'.findings[] | select(.severity == "error")\''],
  async run(given, io) {
    const path = findConfig(given.text('config'), io.env, io.exists)
    if (path === undefined) throw new UsageError(NO_CONFIG)
    const [{ examine }, { exitOf, findingsText, worst }] = await Promise.all([
      import('./doctor/run.ts'),
      import('./doctor/finding.ts'),
    ])
    const findings = await examine(path, io, { mayProbe: given.flag('probe') })
    const stdout = given.flag('json') ? printJson({ severity: worst(findings), findings }) : findingsText(findings, io)
    return { stdout, stderr: '', exit: exitOf(findings) }
  },
}
