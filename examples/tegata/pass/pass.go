// Package pass draws a text as a QR code.
package pass

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"rsc.io/qr"
)

// MaxBytes is what a pass may hold; more would be too fine for a camera.
const MaxBytes = 600

// quiet is the margin that ISO/IEC 18004 asks for, in modules.
const quiet = 4

var (
	// ErrEmpty says that there is nothing to write.
	ErrEmpty = errors.New("the pass is empty")
	// ErrLong says that the text is longer than MaxBytes.
	ErrLong = fmt.Errorf("the pass holds more than %d bytes", MaxBytes)
	// ErrText says that the text is not UTF-8, or holds control characters.
	ErrText = errors.New("the pass holds something that is not text")
)

// A Pass is a QR code.
type Pass struct {
	code *qr.Code
}

// Write makes a pass of a text.
func Write(text string) (*Pass, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return nil, ErrEmpty
	case len(text) > MaxBytes:
		return nil, ErrLong
	case !utf8.ValidString(text) || strings.ContainsFunc(text, control):
		return nil, ErrText
	}
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil, fmt.Errorf("cannot write the pass: %w", err)
	}
	return &Pass{code}, nil
}

// Side is the length of a side in modules, with its margin.
func (p *Pass) Side() int {
	return p.code.Size + 2*quiet
}

// Path is the drawing, as the `d` of an SVG path: a rectangle for each run of dark modules in a row.
func (p *Pass) Path() string {
	var path strings.Builder
	for y := range p.code.Size {
		for x := 0; x < p.code.Size; {
			start := x
			for x < p.code.Size && p.code.Black(x, y) {
				x++
			}
			if x > start {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", start+quiet, y+quiet, x-start, x-start)
			} else {
				x++
			}
		}
	}
	return path.String()
}

func control(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' || r == 0x7f
}
