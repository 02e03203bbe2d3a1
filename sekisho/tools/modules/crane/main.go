// Command referrers-registry is a registry for tests: in memory, on one address, with the referrers API of OCI 1.1.
//
// Two implementations that others wrote, because they differ where clients go wrong. `cue` is CUE's: it says
// OCI-Subject when it takes a referrer. `crane` is go-containerregistry's: it does not, it lists in no order, and it
// gives the config's media type as artifactType.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/google/go-containerregistry/pkg/registry"
)

// version is set by the linker.
var version = "none"

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	name := flag.String("implementation", "cue", "cue or crane")
	show := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *show {
		fmt.Println("referrers-registry", version)
		return
	}
	handlers := map[string]func() http.Handler{
		"cue": func() http.Handler { return ociserver.New(ocimem.New(), nil) },
		"crane": func() http.Handler {
			return registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
		},
	}
	handler, known := handlers[*name]
	if !known || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	server := &http.Server{Addr: *address, Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
