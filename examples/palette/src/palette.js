/**
 * A scale of colours from one: even steps of lightness as the eye sees it, one hue, and for each the text colour that
 * can be read on it. Pure.
 *
 * Colours are reckoned in OKLCH (https://bottosson.github.io/posts/oklab/); contrast as in WCAG 2.2.
 */

const STEPS = [0.97, 0.93, 0.86, 0.77, 0.67, 0.57, 0.47, 0.38, 0.29]
const HEX = /^#?([0-9a-f]{3}|[0-9a-f]{6})$/i

/** The channels of `#rgb` or `#rrggbb`, each from 0 to 1; null for anything else. */
export function parse(text) {
  const match = HEX.exec(String(text).trim())
  if (!match) return null
  const full = match[1].length === 3 ? match[1].replace(/./g, '$&$&') : match[1]
  return [0, 2, 4].map(at => Number.parseInt(full.slice(at, at + 2), 16) / 255)
}

export function format(rgb) {
  return '#' + rgb.map(part => Math.round(part * 255).toString(16).padStart(2, '0')).join('')
}

const linear = part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
const gamma = part => (part <= 0.0031308 ? part * 12.92 : 1.055 * part ** (1 / 2.4) - 0.055)

export function toLch(rgb) {
  const [r, g, b] = rgb.map(linear)
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
  const a = 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s
  const b2 = 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s
  return {
    lightness: 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    chroma: Math.hypot(a, b2),
    hue: Math.atan2(b2, a)
  }
}

function toRgb({ lightness, chroma, hue }) {
  const a = chroma * Math.cos(hue)
  const b = chroma * Math.sin(hue)
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s
  ].map(gamma)
}

/** The most colourful shade of this hue and lightness that a screen can show. */
function within(lch) {
  let [low, high] = [0, lch.chroma]
  const shows = chroma => toRgb({ ...lch, chroma }).every(part => part >= -1e-6 && part <= 1 + 1e-6)
  if (!shows(high)) {
    for (let round = 0; round < 24; round += 1) {
      const middle = (low + high) / 2
      if (shows(middle)) low = middle
      else high = middle
    }
    high = low
  }
  return toRgb({ ...lch, chroma: high }).map(part => Math.min(1, Math.max(0, part)))
}

export function luminance(rgb) {
  const [r, g, b] = rgb.map(linear)
  return 0.2126 * r + 0.7152 * g + 0.0722 * b
}

export function contrast(one, other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b)
  return (high + 0.05) / (low + 0.05)
}

/** The scale of a colour, lightest first; null where the text is no colour. */
export function palette(text) {
  const rgb = parse(text)
  if (!rgb) return null
  const { chroma, hue } = toLch(rgb)
  return STEPS.map((lightness, index) => {
    const shade = within({ lightness, chroma: chroma * (0.55 + 0.45 * Math.sin(Math.PI * (1 - lightness))), hue })
    const ink = contrast(shade, [1, 1, 1]) >= 4.5 ? [1, 1, 1] : [0, 0, 0]
    return {
      name: (index + 1) * 100,
      colour: format(shade),
      text: format(ink),
      contrast: Math.round(contrast(shade, ink) * 10) / 10
    }
  })
}
