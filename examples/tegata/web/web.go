// Package web is Tegata's page.
package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"os"

	"golang.org/x/text/language"

	"sekisho.dev/examples/tegata/pass"
)

//go:embed templates/*.html static
var files embed.FS

// Nothing from elsewhere, no script at all: the drawing is markup.
const policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// A site answers the requests.
type site struct {
	page *template.Template
	log  *slog.Logger
}

// New returns the page with all that belongs to it.
func New(log *slog.Logger) (http.Handler, error) {
	page, err := template.ParseFS(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	static, err := fs.Sub(files, "static")
	if err != nil {
		return nil, err
	}
	s := &site{page, log}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /{$}", s.index)
	routes.HandleFunc("GET /pass.svg", s.drawing)
	routes.HandleFunc("GET /api/info", info)
	routes.HandleFunc("GET /healthz", healthy)
	routes.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(static)))
	return guarded(routes), nil
}

func (s *site) index(w http.ResponseWriter, r *http.Request) {
	tag, _ := language.MatchStrings(languages, r.FormValue("language"), r.Header.Get("Accept-Language"))
	base, _ := tag.Base()
	view := struct {
		Phrases
		Text, Error string
		Pass        *pass.Pass
		Max         int
	}{Phrases: phrases[base.String()], Text: r.FormValue("text"), Max: pass.MaxBytes}
	status := http.StatusOK
	if r.URL.Query().Has("text") {
		made, err := pass.Write(view.Text)
		if err != nil {
			status, view.Error = http.StatusUnprocessableEntity, view.Why(err)
		}
		view.Pass = made
	}
	var body bytes.Buffer
	if err := s.page.ExecuteTemplate(&body, "index.html", view); err != nil {
		s.log.Error("the page cannot be written", "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept-Language")
	w.WriteHeader(status)
	_, _ = body.WriteTo(w)
}

func (s *site) drawing(w http.ResponseWriter, r *http.Request) {
	made, err := pass.Write(r.FormValue("text"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Cache-Control", "public, max-age=86400")
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[1]d" shape-rendering="crispEdges">`+
		`<path fill="#fff" d="M0 0h%[1]dv%[1]dH0z"/><path d="%[2]s"/></svg>`, made.Side(), made.Path())
}

func info(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"app": "tegata", "release": os.Getenv("SEKISHO_RELEASE"), "zone": os.Getenv("SEKISHO_ZONE"),
	})
}

func healthy(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

// guarded sets what every answer carries, and refuses large requests.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, 1<<12)
		next.ServeHTTP(w, r)
	})
}

// Why says in the reader's language why there is no pass.
func (p Phrases) Why(err error) string {
	switch {
	case errors.Is(err, pass.ErrEmpty):
		return p.Empty
	case errors.Is(err, pass.ErrLong):
		return p.Long
	default:
		return p.NoText
	}
}
