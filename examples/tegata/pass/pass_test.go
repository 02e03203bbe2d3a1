package pass

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestWhatIsNoPass(t *testing.T) {
	for text, want := range map[string]error{
		"":                              ErrEmpty,
		" \n\t":                         ErrEmpty,
		strings.Repeat("x", MaxBytes+1): ErrLong,
		"\xff\xfe":                      ErrText,
		"a\x00b":                        ErrText,
		"a\x7fb":                        ErrText,
	} {
		if _, err := Write(text); !errors.Is(err, want) {
			t.Errorf("Write(%q) = %v, want %v", text, err, want)
		}
	}
}

func TestTheLongestTextFits(t *testing.T) {
	if _, err := Write(strings.Repeat("x", MaxBytes)); err != nil {
		t.Fatal(err)
	}
}

// The path is drawn again, module by module, and must be the code.
func TestThePathIsTheCode(t *testing.T) {
	made, err := Write("関所 https://example.org")
	if err != nil {
		t.Fatal(err)
	}
	drawn := draw(t, made)
	for y := range made.Side() {
		for x := range made.Side() {
			if want := made.code.Black(x-quiet, y-quiet); drawn[[2]int{x, y}] != want {
				t.Fatalf("module %d,%d is %v, want %v", x, y, !want, want)
			}
		}
	}
}

func draw(t *testing.T, p *Pass) map[[2]int]bool {
	t.Helper()
	dark := map[[2]int]bool{}
	for _, part := range strings.Split(strings.TrimSuffix(p.Path(), "z"), "z") {
		x, y, width := run(t, part)
		for i := range width {
			if dark[[2]int{x + i, y}] {
				t.Fatalf("module %d,%d is drawn twice", x+i, y)
			}
			dark[[2]int{x + i, y}] = true
		}
	}
	return dark
}

// run reads one rectangle of a path.
func run(t *testing.T, part string) (x, y, width int) {
	t.Helper()
	var back int
	if _, err := fmt.Sscanf(part, "M%d %dh%dv1h-%d", &x, &y, &width, &back); err != nil || back != width || width < 1 {
		t.Fatalf("%q is no rectangle: %v", part, err)
	}
	return x, y, width
}
