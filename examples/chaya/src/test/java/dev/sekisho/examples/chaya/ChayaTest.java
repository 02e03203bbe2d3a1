package dev.sekisho.examples.chaya;

import static org.hamcrest.Matchers.containsString;
import static org.hamcrest.Matchers.hasSize;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.get;
import static org.springframework.test.web.servlet.request.MockMvcRequestBuilders.post;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.content;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.jsonPath;
import static org.springframework.test.web.servlet.result.MockMvcResultMatchers.status;

import org.junit.jupiter.api.Test;
import org.springframework.beans.factory.annotation.Autowired;
import org.springframework.boot.test.context.SpringBootTest;
import org.springframework.boot.webmvc.test.autoconfigure.AutoConfigureMockMvc;
import org.springframework.http.MediaType;
import org.springframework.test.web.servlet.MockMvc;
import org.springframework.test.web.servlet.ResultActions;

@SpringBootTest
@AutoConfigureMockMvc
class ChayaTest {
    @Autowired
    private MockMvc http;

    private ResultActions order(String lines) throws Exception {
        return http.perform(post("/orders").contentType(MediaType.APPLICATION_JSON).content(lines));
    }

    @Test
    void theMenuIsShown() throws Exception {
        http.perform(get("/menu")).andExpect(status().isOk()).andExpect(jsonPath("$", hasSize(4)));
    }

    @Test
    void anOrderHasItsPrice() throws Exception {
        order("[{\"item\": \"sencha\", \"count\": 2}, {\"item\": \"dango\", \"count\": 3}]")
                .andExpect(status().isCreated())
                .andExpect(jsonPath("$.mon").value(24));
    }

    @Test
    void whatIsNotOnTheMenuIsRefused() throws Exception {
        order("[{\"item\": \"coffee\", \"count\": 1}]")
                .andExpect(status().isUnprocessableContent())
                .andExpect(status().reason("There is no coffee."));
    }

    @Test
    void anOrderOfNothingIsRefused() throws Exception {
        order("[]").andExpect(status().isUnprocessableContent());
        order("[{\"item\": \"soba\", \"count\": 0}]").andExpect(status().isUnprocessableContent());
    }

    @Test
    void thePageIsThere() throws Exception {
        http.perform(get("/index.html")).andExpect(content().string(containsString("Chaya")));
    }
}
