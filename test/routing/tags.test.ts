import { describe, expect, test } from 'bun:test'
import { cleanTags, selectByTags } from '../../src/routing/tags.ts'
import { aliases, member } from './candidates.ts'

/** Members out of `name:tag,tag` */
const group = (...specs: string[]) =>
  specs.map(spec => {
    const [alias = '', tags = ''] = spec.split(':')
    return member(alias, { tags: tags === '' ? [] : tags.split(',') })
  })

const PLAIN = group('a', 'b')
const TAGGED = group('a:gpu,eu', 'b:cpu', 'c')
const WITH_DEFAULT = group('a:gpu', 'b:default', 'c', 'd:cpu,default')

describe('targets that a request may use', () => {
  test.each([
    ['nobody is tagged: all', PLAIN, 'gpu', ['a', 'b']],
    ['nobody is tagged and nothing is asked: all', PLAIN, null, ['a', 'b']],
    ['nothing is asked and nobody is `default`: all, untagged ones too', TAGGED, null, ['a', 'b', 'c']],
    ['nothing is asked: those tagged `default`', WITH_DEFAULT, null, ['b', 'd']],
    ['one tag is shared', TAGGED, 'gpu', ['a']],
    ['one of several is shared', TAGGED, 'tpu,eu', ['a']],
    ['two targets share different ones', TAGGED, 'cpu,eu', ['a', 'b']],
    ['a shared tag goes before `default`', WITH_DEFAULT, 'gpu', ['a']],
    ['none is shared: those tagged `default`', WITH_DEFAULT, 'tpu', ['b', 'd']],
    ['`default` can be asked for', WITH_DEFAULT, 'default', ['b', 'd']],
    ['blanks around a tag do not count', TAGGED, ' \t gpu  ', ['a']],
    ['several headers arrive joined', TAGGED, 'tpu, cpu', ['b']],
    ['blank tags are none', WITH_DEFAULT, ' , ,', ['b', 'd']],
    ['an empty header asks for nothing', TAGGED, '', ['a', 'b', 'c']],
    ['a tag asked twice is one', TAGGED, 'gpu,gpu', ['a']],
  ])('%s', (_case, members, header, expected) => {
    const selected = selectByTags(members, header)
    if ('unmatched' in selected) throw new Error(`no target for ${selected.unmatched}`)
    expect(aliases(selected)).toEqual(expected)
  })

  test.each([
    ['no target shares one', 'tpu', ['tpu']],
    ['case is another tag', 'GPU', ['GPU']],
    ['a part of a tag is another tag', 'gp', ['gp']],
    ['`default` is asked for and nobody has it', 'default', ['default']],
    ['several are asked for: all are told, trimmed', ' tpu,, lpu ', ['tpu', 'lpu']],
  ])('none, where %s', (_case, header, unmatched) => {
    expect(selectByTags(TAGGED, header)).toEqual({ unmatched })
  })

  test('are the very array where all may be used, which spares the filters after it', () => {
    expect(selectByTags(PLAIN, 'gpu')).toBe(PLAIN)
    expect(selectByTags(TAGGED, null)).toBe(TAGGED)
  })
})

test('tags are trimmed, and blank ones dropped', () => {
  expect(cleanTags([' gpu', '', '  ', 'eu west '])).toEqual(['gpu', 'eu west'])
})
