/** `aisix completion`: what shells need to complete our commands, made of the registry. */
import type { Command } from './command.ts'
import { done, UsageError } from './command.ts'

const SHELLS = ['bash', 'zsh', 'fish'] as const

export const completion: Command = {
  words: ['completion'],
  summary: 'print completion for a shell',
  about: `Prints a script that makes a shell complete commands, options, what options take from a list, and names of files.`,
  args: [{ name: 'SHELL', complete: SHELLS, about: 'bash, zsh or fish.' }],
  examples: [
    'aisix completion bash > ~/.local/share/bash-completion/completions/aisix',
    'aisix completion zsh > "${fpath[1]}/_aisix"',
    'aisix completion fish > ~/.config/fish/completions/aisix.fish',
  ],
  async run(given) {
    const shell = SHELLS.find(each => each === given.arg('SHELL'))
    if (shell === undefined) throw new UsageError(`completion needs one of ${SHELLS.join(', ')}`)
    const { completionScript } = await import('./completion-scripts.ts')
    return done(completionScript(shell))
  },
}
