package web

import "golang.org/x/text/language"

// Phrases are the words of the page in one language.
type Phrases struct {
	Language, Title, Lead, Label, Hint, Button, Made, Save string
	Empty, Long, NoText                                    string
}

var languages = language.NewMatcher([]language.Tag{language.English, language.Japanese, language.German})

var phrases = map[string]Phrases{
	"en": {
		Language: "en",
		Title:    "Travel passes",
		Lead:     "No one went through the checkpoint without a tegata. Write one: a word, a name, a link.",
		Label:    "What does the pass say?",
		Hint:     "It is drawn here and kept nowhere.",
		Button:   "Write the pass",
		Made:     "A QR code that says:",
		Save:     "Save as SVG",
		Empty:    "Write something first.",
		Long:     "That is too long for a pass: 600 bytes are the most.",
		NoText:   "That holds something that is not text.",
	},
	"ja": {
		Language: "ja",
		Title:    "通行手形",
		Lead:     "手形なしには関所を通れませんでした。言葉、名前、リンクで一枚どうぞ。",
		Label:    "手形の文面",
		Hint:     "ここで描かれ、どこにも保存されません。",
		Button:   "手形を作る",
		Made:     "次の文面の QR コード：",
		Save:     "SVG で保存",
		Empty:    "文面を書いてください。",
		Long:     "長すぎます。600 バイトまでです。",
		NoText:   "文字でないものが含まれています。",
	},
	"de": {
		Language: "de",
		Title:    "Passierscheine",
		Lead:     "Ohne Tegata kam niemand durch die Sperre. Ein Wort, ein Name, ein Link genügt.",
		Label:    "Was steht auf dem Schein?",
		Hint:     "Er wird hier gezeichnet und nirgends aufgehoben.",
		Button:   "Schein ausstellen",
		Made:     "Ein QR-Code mit dem Text:",
		Save:     "Als SVG sichern",
		Empty:    "Bitte zuerst etwas schreiben.",
		Long:     "Das ist zu lang: höchstens 600 Bytes.",
		NoText:   "Darin ist etwas, das kein Text ist.",
	},
}
