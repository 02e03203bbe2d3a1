const input = document.querySelector('input')
const shown = document.querySelector('output')
const list = document.querySelector('ol')
const status = document.querySelector('[role=status]')
let asked = 0

function shade({ name, colour, text, contrast }) {
  const item = document.createElement('li')
  const button = document.createElement('button')
  button.style.background = colour
  button.style.color = text
  for (const [tag, content] of [['b', name], ['code', colour], ['small', `${contrast} : 1`]]) {
    button.append(Object.assign(document.createElement(tag), { textContent: content }))
  }
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(colour)
      status.textContent = `${colour} is copied.`
    } catch {
      status.textContent = `This browser does not let the page copy; the shade is ${colour}.`
    }
  })
  item.append(button)
  return item
}

async function show(colour) {
  const mine = ++asked
  try {
    const answer = await fetch(`api/palette${colour ? `?colour=${encodeURIComponent(colour)}` : ''}`)
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`)
    const { colour: got, scale } = await answer.json()
    if (mine !== asked) return
    input.value = shown.value = got
    list.replaceChildren(...scale.map(shade))
  } catch (error) {
    status.textContent = `The scale could not be made: ${error.message}.`
  }
}

input.addEventListener('input', () => show(input.value))
document.querySelector('form button').addEventListener('click', () => show(''))
document.querySelector('form').addEventListener('submit', event => event.preventDefault())
show(input.value)
