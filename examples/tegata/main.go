// Tegata writes travel passes: a word, a name or a link as a QR code, drawn as an SVG in the page.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sekisho.dev/examples/tegata/web"
)

const patience = 10 * time.Second

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := serve(log); err != nil {
		log.Error("stopped", "error", err)
		os.Exit(1)
	}
}

// serve answers requests until a signal comes, then lets open ones finish.
func serve(log *slog.Logger) error {
	site, err := web.New(log)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              net.JoinHostPort("", port()),
		Handler:           site,
		ReadHeaderTimeout: patience,
		ReadTimeout:       patience,
		WriteTimeout:      patience,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 14,
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Info("listening", "address", server.Addr)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// port is the one that score.yaml names; the line sets it.
func port() string {
	if value := os.Getenv("PORT"); value != "" {
		return value
	}
	return "8080"
}
