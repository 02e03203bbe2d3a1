"""The pages."""

from __future__ import annotations

import hmac
import os
import secrets
from http import HTTPStatus

from flask import Flask, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from guestbook.store import Store, Unavailable

COOKIE = "guestbook-form"
AUTHOR_LENGTH = 60
MESSAGE_LENGTH = 1000
BODY_LIMIT = 16 * 1024
POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def info() -> dict[str, str]:
    """Return what the delivery line says about this deployment."""
    return {
        "app": os.environ.get("SEKISHO_APP", "guestbook"),
        "release": os.environ.get("SEKISHO_RELEASE", ""),
        "zone": os.environ.get("SEKISHO_ZONE", ""),
    }


def create_app(store: Store) -> Flask:
    """Return the application."""
    app = Flask("guestbook")
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT

    @app.get("/")
    def index() -> Response:
        return page(store)

    @app.post("/entries")
    def add() -> BaseResponse:
        return add_entry(store)

    @app.get("/healthz")
    def health() -> tuple[dict[str, str], int]:
        """Answer whether the workload can serve: without its database it cannot."""
        if store.ready():
            return {"status": "ready"}, HTTPStatus.OK
        return {"status": "no database"}, HTTPStatus.SERVICE_UNAVAILABLE

    @app.get("/livez")
    def live() -> dict[str, str]:
        """Answer whether the process runs: a restart of it does not bring a database back."""
        return {"status": "alive"}

    @app.get("/api/info")
    def api_info() -> Response:
        return jsonify(info())

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        if not request.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-store"
        return response

    return app


def add_entry(store: Store) -> BaseResponse:
    """Write what was typed and go back to the page, or say what is wrong with it."""
    if not same_form():
        return page(store, "This form is too old. Please send it again.", HTTPStatus.FORBIDDEN)
    author, message = text("author"), text("message")
    if not author or not message:
        return page(store, "Please write a name and a message.", HTTPStatus.BAD_REQUEST)
    if len(author) > AUTHOR_LENGTH or len(message) > MESSAGE_LENGTH:
        return page(store, "That is too long.", HTTPStatus.BAD_REQUEST)
    try:
        store.add(author, message)
    except Unavailable:
        return page(store, "The guestbook cannot be written now.", HTTPStatus.SERVICE_UNAVAILABLE)
    return redirect("/", HTTPStatus.SEE_OTHER)


def text(name: str) -> str:
    """Return a field of the form; PostgreSQL's text cannot hold a NUL."""
    return request.form.get(name, "").replace("\0", "").strip()


def same_form() -> bool:
    """Return whether the form came from our own page: the cookie and the hidden field agree (double submit)."""
    cookie, field = request.cookies.get(COOKIE, ""), request.form.get("token", "")
    return len(cookie) > 0 and hmac.compare_digest(cookie.encode(), field.encode())


def page(store: Store, notice: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
    """Return the one page there is."""
    try:
        entries, available = store.entries(), True
    except Unavailable:
        entries, available = [], False
        status = status if notice else HTTPStatus.SERVICE_UNAVAILABLE
    token = request.cookies.get(COOKIE) or secrets.token_urlsafe(24)
    html = render_template(
        "index.html",
        entries=entries,
        available=available,
        notice=notice,
        token=token,
        info=info(),
        author=text("author") if notice else "",
        message=text("message") if notice else "",
        author_length=AUTHOR_LENGTH,
        message_length=MESSAGE_LENGTH,
    )
    response = Response(html, status=status, mimetype="text/html")
    response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
    return response
