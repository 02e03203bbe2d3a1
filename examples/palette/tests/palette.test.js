import assert from 'node:assert/strict'
import { test } from 'node:test'
import { contrast, format, luminance, palette, parse, toLch } from '../src/palette.js'

test('a colour is read in both spellings and written in one', () => {
  assert.equal(format(parse('#2A7f62')), '#2a7f62')
  assert.equal(format(parse(' f0a ')), '#ff00aa')
})

test('what is no colour is none', () => {
  for (const text of ['', '#12', '#12345', 'red', '#gggggg', '#1234567', undefined, {}, '<script>']) {
    assert.equal(palette(text), null, String(text))
  }
})

test('contrast is as in WCAG', () => {
  assert.equal(contrast([0, 0, 0], [1, 1, 1]), 21)
  assert.equal(Math.round(contrast(parse('#767676'), parse('#fff')) * 100) / 100, 4.54)
})

test('each shade is darker than the one before, and text on it can be read', () => {
  for (let value = 0; value < 0x1000000; value += 0x10f0f1) {
    const scale = palette('#' + value.toString(16).padStart(6, '0'))
    assert.equal(scale.length, 9)
    scale.forEach(({ colour, text, contrast: said }, index) => {
      assert.ok(said >= 4.5, `${colour} with ${text}: ${said}`)
      if (index) assert.ok(luminance(parse(colour)) < luminance(parse(scale[index - 1].colour)))
    })
  }
})

test('grey stays grey, and a hue stays itself', () => {
  for (const { colour } of palette('#777777')) assert.ok(toLch(parse(colour)).chroma < 0.005, colour)
  const { hue } = toLch(parse('#2a7f62'))
  for (const { colour } of palette('#2a7f62')) assert.ok(Math.abs(toLch(parse(colour)).hue - hue) < 0.1, colour)
})
