module sekisho.dev/examples/tegata

go 1.26.0

require (
	golang.org/x/text v0.43.0
	rsc.io/qr v0.2.0
)
