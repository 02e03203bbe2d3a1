package web

import (
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func get(t *testing.T, target string, headers ...string) *http.Response {
	t.Helper()
	handler, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestThePageDrawsAPassAndEscapesItsText(t *testing.T) {
	response := get(t, "/?text="+url.QueryEscape(`</textarea><script>alert("関所")</script>`))
	page := body(t, response)
	if response.StatusCode != http.StatusOK || !strings.Contains(page, `<path class="ink" d="M`) {
		t.Fatalf("%d without a pass:\n%s", response.StatusCode, page)
	}
	if strings.Contains(page, "<script") {
		t.Error("the text came back as markup")
	}
	if got := response.Header.Get("Content-Security-Policy"); got != policy {
		t.Errorf("policy %q", got)
	}
}

func TestWithoutATextThereIsAFormAndNoPass(t *testing.T) {
	page := body(t, get(t, "/"))
	if !strings.Contains(page, "<form") || strings.Contains(page, "<figure") {
		t.Errorf("unexpected page:\n%s", page)
	}
}

func TestAPassThatCannotBeIsRefusedInTheReadersLanguage(t *testing.T) {
	response := get(t, "/?text=%20", "Accept-Language", "fr;q=0.9, ja;q=0.8")
	page := body(t, response)
	if response.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(page, phrases["ja"].Empty) {
		t.Errorf("%d:\n%s", response.StatusCode, page)
	}
}

func TestLanguages(t *testing.T) {
	for header, want := range map[string]string{"": "en", "de-AT, en;q=0.5": "de", "ja-JP": "ja", "xx": "en", ";;q": "en"} {
		page := body(t, get(t, "/", "Accept-Language", header))
		if !strings.Contains(page, `<html lang="`+want+`">`) {
			t.Errorf("%q did not give %s", header, want)
		}
	}
	if page := body(t, get(t, "/?language=ja", "Accept-Language", "de")); !strings.Contains(page, phrases["ja"].Title) {
		t.Error("the link does not choose")
	}
	for code, words := range phrases {
		if words.Language != code || strings.TrimSpace(words.Why(io.EOF)) == "" {
			t.Errorf("%s is not whole", code)
		}
	}
}

func TestTheDrawingIsXML(t *testing.T) {
	response := get(t, "/pass.svg?text=%E9%96%A2%E6%89%80")
	if got := response.Header.Get("Content-Type"); got != "image/svg+xml" {
		t.Errorf("type %q", got)
	}
	var svg struct {
		Box string `xml:"viewBox,attr"`
	}
	if err := xml.Unmarshal([]byte(body(t, response)), &svg); err != nil || !strings.HasPrefix(svg.Box, "0 0 ") {
		t.Errorf("%v %q", err, svg.Box)
	}
	if got := get(t, "/pass.svg").StatusCode; got != http.StatusUnprocessableEntity {
		t.Errorf("an empty one gives %d", got)
	}
}

func TestOtherPlaces(t *testing.T) {
	for target, want := range map[string]int{
		"/healthz": 200, "/api/info": 200, "/static/style.css": 200, "/static/icon.svg": 200,
		"/nothing": 404, "/static/../web.go": 307, "/static/missing.css": 404,
	} {
		if got := get(t, target).StatusCode; got != want {
			t.Errorf("%s gives %d, want %d", target, got, want)
		}
	}
}
